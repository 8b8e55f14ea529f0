"""The probe: trained models are asked about a target, in cheap views, and nothing is trained."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.adaptation import estimate_on_target
from models.choice.candidates import Plain, Statistics
from models.choice.label_scores import FEW_TILES, gather_all
from models.choice.looks import Look, LookMeta
from models.choice.steadiness import Steadiness
from models.choice.views import VIEWS, applied, fitted, unchanged
from models.data.domain import Domain
from models.data.labels import PRESENT
from models.data.sections import Section
from models.data.stylised import StylisedDomain
from models.inference import Predictor, Styliser, stylise_domain
from models.labels_used.area import prior_by_labels
from models.labels_used.rounds import NO_NOISE
from models.metadata import RAW, ModelMeta, ViewMeta
from models.networks.statistics import norms
from models.networks.unet import UNet
from models.training.progress import Progress

MOST_PIXELS = 16 << 20
"""The most pixels of all sections, at the working size, that each candidate predicts, unless one
section has more: 16 sections of 1024 x 1024 pixels."""

_LABELLED = 0.75  # the share of the sections that have labelled tiles, if there are enough


@dataclass(frozen=True)
class Asked:
    """A trained segmenter; ``source`` is None if its source was deleted."""

    id: str
    segmenter: UNet
    meta: ModelMeta
    source: Domain | None


def sections_to_see(target: Domain, most: int) -> tuple[Section, ...]:
    """Return up to ``most`` training sections, evenly spread; most of them have labelled tiles.

    There are fewer if they have more than 16 million pixels together, but at least one.
    """
    sections = target.training_sections()
    largest = max(int(np.prod(target.working_shape(section))) for section in sections)
    number = max(1, min(most, len(sections), MOST_PIXELS // largest))
    known = {tile.section for tile in target.labelled_tiles(["train"])}
    labelled = _evenly([s for s in sections if s.index in known], round(_LABELLED * number) or 1)
    others = [section for section in sections if section not in labelled]
    chosen = {*labelled, *_evenly(others, number - len(labelled))}
    return tuple(section for section in sections if section in chosen)


class Prober:
    """Asks one model about the tiles of some training sections of a target.

    ``candidates`` are the views, each with the statistics of the source and of the target; first
    comes the model as it is. The target has the model's classes and pixel size. ``folder`` is for
    images that are needed meanwhile.
    """

    def __init__(
        self, asked: Asked, target: Domain, sections: Sequence[Section], folder: Path
    ) -> None:
        self._asked, self._folder = asked, folder
        self.candidates = tuple(_candidates(asked))
        self._sections = sections
        chosen = {section.index for section in sections}
        self._tiles = [n for n, tile in enumerate(target.tiles) if tile.section in chosen]
        self._target = Domain(
            target.store, target.info, sections, target.tiles, working_nm=target.working_nm
        )

    def looks(self) -> Iterator[Look]:
        """Yield what each candidate says."""
        for number, (plain, view) in enumerate(self.candidates):
            yield self._look(plain, view, as_it_is=number == 0)

    def _look(self, plain: Plain, view: ViewMeta, *, as_it_is: bool) -> Look:
        meta = self._asked.meta
        predictor = Predictor(
            self._segmenter(plain, view), meta.working_nm, meta.crop_px, view=applied(view)
        )
        steady = Steadiness(self._target.num_classes) if self._few else None
        seen = self._at(view)
        evidence = gather_all(predictor.probabilities, seen, self._sections, steady)
        told = LookMeta(
            model=self._asked.id,
            title=self._title(plain, as_it_is=as_it_is),
            view=plain.view,
            statistics=plain.statistics,
            class_names=meta.class_names,
            as_it_is=as_it_is,
            consistency=None if steady is None else steady.of(self._wanted),
        )
        return Look(
            meta=told,
            tiles=self._numbers(seen),
            sections=evidence.sections,
            shares=evidence.shares,
            peaks=evidence.peaks,
            source_area=self._area,
        )

    def _title(self, plain: Plain, *, as_it_is: bool) -> str:
        if self._asked.meta.target is None:
            return plain.title
        adapted = "The adapted model"
        return adapted if as_it_is else plain.title.replace("Source-only", adapted)

    def _segmenter(self, plain: Plain, view: ViewMeta) -> UNet:
        if plain.statistics == "source":
            return self._asked.segmenter
        segmenter = copy.deepcopy(self._asked.segmenter)
        # Noise would change them, and the images that are segmented have none.
        clean = self._asked.meta.config.changed({"adaptation": {"augmentation": NO_NOISE}})
        estimate_on_target(segmenter, self._seen(view), clean)
        return segmenter.eval()

    def _seen(self, view: ViewMeta) -> StylisedDomain:
        """Return the sections as they look through a view."""
        out = self._folder / f"{view.name}.zarr"
        styliser = Styliser(applied(view) or unchanged, f"view {view.name}")
        return stylise_domain(styliser, self._at(view), out, _quietly)

    def _at(self, view: ViewMeta) -> Domain:
        """Return the target at the pixel size of a view."""
        if view.pixel_factor == 1:
            return self._target
        return self._target.at(view.pixel_factor * self._target.working_nm)

    def _numbers(self, target: Domain) -> NDArray[np.int64]:
        """Return the numbers of the tiles in the order of the evidence."""
        numbers: list[int] = []
        for section in self._sections:
            height, width = target.working_shape(section)
            own = [n for n in self._tiles if target.tiles[n].section == section.index]
            y0, y1, x0, x1 = target.tile_windows(section).edges.T
            # Tiles that have no pixel at the working size are not in the evidence.
            shown = (y0 < np.minimum(y1, height)) & (x0 < np.minimum(x1, width))
            numbers += [n for n, there in zip(own, shown, strict=True) if there]
        return np.array(numbers, np.int64)

    @cached_property
    def _labelled(self) -> NDArray[np.int64]:
        """Return the labels of the tiles that have some, (T, C)."""
        labels = [tile.labels for tile in self._target.labelled_tiles(["train"])]
        return np.array(labels, np.int64).reshape(-1, self._target.num_classes)

    @property
    def _few(self) -> bool:
        return len(self._labelled) < FEW_TILES

    @property
    def _wanted(self) -> NDArray[np.bool_]:
        """Return the classes whose predictions should be steady: those that labels call present."""
        present = (self._labelled == PRESENT).any(axis=0)
        return present if present.any() else np.ones_like(present)

    @cached_property
    def _area(self) -> NDArray[np.float64]:
        source = self._asked.source
        if source is None or not source.split("train", masked=True):
            return np.full(self._target.num_classes, np.nan)
        return prior_by_labels(source, self._target)


def _candidates(asked: Asked) -> Iterator[tuple[Plain, ViewMeta]]:
    """Yield the candidates of a model, as it is first."""
    own = asked.meta.view
    views = [own] + [view for view in _views(asked.source) if view.name != own.name]
    if own.name == "raw" and own != RAW:
        views.append(RAW)
    kinds: tuple[Statistics, ...] = ("source", "target") if norms(asked.segmenter) else ("source",)
    for view in views:
        for statistics in kinds:
            yield Plain(view.name, statistics, pixel_factor=view.pixel_factor), view


def _views(source: Domain | None) -> Iterator[ViewMeta]:
    """Yield all views of grey values; without the source, those that need nothing of it."""
    matched = None if source is None else fitted("histogram", source)
    for name in VIEWS:
        if "histogram" not in name:
            yield ViewMeta(name=name)
        elif matched is not None:  # both views with this word match the same grey values
            yield matched.model_copy(update={"name": name})


def _evenly(sections: Sequence[Section], number: int) -> list[Section]:
    """Return up to ``number`` sections, from the middle of as many equal runs."""
    number = min(number, len(sections))
    places = ((np.arange(number) + 0.5) * len(sections) / max(1, number)).astype(int)
    return [sections[place] for place in places]


def _quietly(_: Progress) -> None:
    """Report nothing: looks are reported as a whole."""
