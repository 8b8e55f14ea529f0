"""Says which tiles of a dataset to label next, and whether more labels are worth it."""

from uuid import UUID

import numpy as np
import zarr
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.errors import NotFound
from app.probes import reading
from app.probes.reading import Probe, TargetTiles
from app.probes.schemas import NextTile, NextTiles, SuggestedTile
from app.storage import Storage
from app.tables import Dataset
from models.choice.probed import Enough, best_of_each, enough
from models.data.class_map import ClassMap
from models.data.domain import IGNORE, normalise
from models.data.labels import PRESENT, UNKNOWN
from models.data.tile_sizes import rescaled_px
from models.labels_used.next_tiles import Pick, TilesToOrder, order

_MOST_SECTIONS = 24
_MOST_PIXELS = 1 << 26
"""The most sections, and pixels, whose grey values are read where no probe tells the order."""

_EVERY = 4  # pixels along a side of a tile whose grey value is taken
_LEAST_LABELS = 30  # of fewer labels the share of a class is too uncertain
_STEP_PX = 8

HOW = "POST /jobs/probe asks the trained models about this dataset"


def next_tiles(session: Session, storage: Storage, dataset_id: UUID, limit: int) -> NextTiles:
    """Order the training tiles that have no label.

    Raises:
        NotFound: there is no such dataset.
    """
    dataset = datasets.get(session, dataset_id)
    tiles = reading.read_tiles(session, dataset)
    probe = reading.latest(session, storage, tiles)
    told = None if probe is None else probe.read()
    training = np.flatnonzero(tiles.training)
    asked = _to_order(tiles, training, probe)
    session.close()  # reading pixels takes a while, and needs no connection
    if probe is None and asked.unlabelled.any():
        asked = _with_grey(asked, tiles, training, storage)
    picks = order(asked, limit)
    judged = _enough(probe, asked)
    return NextTiles(
        items=[_item(pick, int(training[pick.number]), tiles) for pick in picks],
        num_unlabelled=int(asked.unlabelled.sum()),
        num_labelled=int((~asked.unlabelled).sum()),
        looked_at=int((asked.unlabelled & asked.looked_at).sum()),
        enough=None if judged is None else judged.enough,
        more=None if judged is None else judged.more,
        reason=f"Nobody can know without a probe: {HOW}." if judged is None else judged.reason,
        suggested_tile_px=_sizes(tiles, probe),
        probe=told,
        notes=_notes(tiles, asked, probe),
    )


def _to_order(tiles: TargetTiles, training: NDArray[np.intp], probe: Probe | None) -> TilesToOrder:
    boxes, labels = tiles.boxes[training], tiles.labels[training]
    none = np.zeros((0, *labels.shape))
    return TilesToOrder(
        sections=tiles.sections[training],
        centres=boxes[:, :2] + boxes[:, 2:] / 2,
        sides=boxes[:, 2:],
        labels=labels,
        presence=none if probe is None else probe.presence()[:, training],
    )


def _with_grey(
    asked: TilesToOrder, tiles: TargetTiles, training: NDArray[np.intp], storage: Storage
) -> TilesToOrder:
    """Add the mean and the spread of the grey values of the tiles of some sections, (T, 2)."""
    dataset = tiles.dataset
    open_ = np.unique(asked.sections[asked.unlabelled])
    sections = [dataset.sections[index] for index in open_]
    largest = max(section.height * section.width for section in sections)
    number = max(1, min(_MOST_SECTIONS, len(sections), _MOST_PIXELS // largest))
    places = ((np.arange(number) + 0.5) * len(sections) / number).astype(int)
    grey = np.full((len(training), 2), np.nan)
    folder = storage.dataset(dataset.id)
    if not folder.is_dir():
        raise NotFound(
            f"dataset {dataset.id} has no files: if the data folder is not mounted, mount it; "
            "otherwise register the dataset again"
        )
    group = zarr.open_group(str(folder), mode="r")
    for place in places:
        section = sections[place]
        window = section.intensity_window or (dataset.window_low, dataset.window_high)
        image = np.asarray(group[f"images/{section.index:06d}"])
        for number in np.flatnonzero(asked.sections == section.index):
            y0, x0, height, width = tiles.boxes[training[number]].astype(int)
            tile = image[y0 : y0 + height : _EVERY, x0 : x0 + width : _EVERY]
            values = normalise(tile, window)
            grey[number] = values.mean(), values.std()
    return TilesToOrder(
        asked.sections, asked.centres, asked.sides, asked.labels, asked.presence, grey
    )


def _item(pick: Pick, number: int, tiles: TargetTiles) -> NextTile:
    dataset, section = tiles.dataset, int(tiles.sections[number])
    first = int((tiles.sections == section).argmax())
    names = dataset.class_names
    classes: dict[str, float] = {}
    presence: dict[str, float] = {}
    if pick.by_class is not None and pick.presence is not None:
        by_value = np.argsort(-pick.by_class, kind="stable")
        classes = {names[c]: float(pick.by_class[c]) for c in by_value}
        presence = {name: float(p) for name, p in zip(names, pick.presence, strict=True)}
    return NextTile(
        image=number,
        section=dataset.sections[section].name,
        tile=number - first,
        told=pick.told,
        classes=classes,
        presence=presence,
    )


def _enough(probe: Probe | None, asked: TilesToOrder) -> Enough | None:
    if not len(asked.labels):
        return Enough(True, "The dataset has no section in its train split, so no tile to label.")
    if not asked.unlabelled.any():
        return Enough(True, "Every training tile has a label.")
    if probe is None:
        return None
    return enough(probe.scored)


def _sizes(tiles: TargetTiles, probe: Probe | None) -> dict[str, SuggestedTile]:
    """Suggest a size for each class: by its labels if there are enough, else by the source.

    A class that many labels call absent, and none present, gets no size.
    """
    dataset = tiles.dataset
    labels = tiles.labels[tiles.labelled]
    sides = np.sqrt(tiles.boxes[tiles.labelled, 2:].prod(axis=1))
    nm = {} if probe is None else _nm_by_source(dataset, probe)
    found = {}
    for number, name in enumerate(dataset.class_names):
        known, present = (
            int(each.sum()) for each in (labels[:, number] != UNKNOWN, labels[:, number] == PRESENT)
        )
        share = present / known if known else None
        if known >= _LEAST_LABELS and not present:
            continue  # no size would show a class that is nowhere
        if known >= _LEAST_LABELS:
            px = rescaled_px(float(np.median(sides)), present, known)
            found[name] = _suggested(px, "labels", share)
        elif name in nm:
            found[name] = _suggested(nm[name] / dataset.pixel_size_nm, "source", share)
    return found


def _suggested(px: float, told_by: str, share: float | None) -> SuggestedTile:
    side = max(2 * _STEP_PX, round(px / _STEP_PX) * _STEP_PX)
    return SuggestedTile.model_validate({"tile_px": side, "told_by": told_by, "share": share})


def _nm_by_source(dataset: Dataset, probe: Probe) -> dict[str, float]:
    """Return the sizes in the masks of the best model's source, by the dataset's classes."""
    best = best_of_each(probe.scored)[0].look.meta
    by_model = {str(model.model): model.tile_nm for model in probe.result.models}
    nm = by_model.get(best.model, {})
    ids = ClassMap.between(dataset.class_names, best.class_names, probe.meanings).ids
    meanings = {
        own: best.class_names[number]
        for own, number in zip(dataset.class_names, ids, strict=True)
        if number != IGNORE
    }
    return {own: nm[meaning] for own, meaning in meanings.items() if meaning in nm}


def _notes(tiles: TargetTiles, asked: TilesToOrder, probe: Probe | None) -> list[str]:
    notes = []
    if tiles.dataset.tile_px is None and len(asked.labels):
        notes.append(
            "The dataset has no tiles: each image is a whole section. Labels of smaller tiles tell "
            "more; register it with tile_px."
        )
    if probe is None:
        notes.append(
            "No probe has looked at this dataset, so the order only spreads the tiles over "
            f"sections and grey values. {HOW}."
        )
        return notes
    unseen = int((asked.unlabelled & ~asked.looked_at).sum())
    if unseen:
        notes.append(
            f"The probe did not look at {unseen} of the tiles without a label. They come last; "
            "another probe may look at more sections."
        )
    return notes
