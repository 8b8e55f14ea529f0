"""Looks: what candidates say of some of a target's tiles, labelled or not; free of torch.

A probe keeps its looks in one file. Labels are not in it: they are read again whenever the looks
are judged, so that new labels count at once.

Legend: T tiles, C classes of the model.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from models.choice.label_scores import Evidence
from models.config.base import FrozenConfig
from models.config.choice import ViewName
from models.data.class_map import ClassMap

FILE = "looks.npz"
"""The name of the file in the folder of a job's attempt."""


class LookMeta(FrozenConfig):
    """Names a candidate: a model, the view that comes before it, and batch norm's statistics."""

    model: str
    title: str
    view: ViewName
    statistics: str
    class_names: tuple[str, ...]
    as_it_is: bool
    """True for the model as it is used: with its own view, and the statistics of its source."""
    consistency: float | None


@dataclass(frozen=True)
class Look:
    """Tells what one candidate says of tiles.

    ``tiles`` (T,) holds the number of each tile in the target, and ``sections`` (T,) the index of
    its section. ``shares`` and ``peaks`` (T, C) are those of ``Evidence``. ``source_area`` (C,) is
    the mean share of each class in those tiles of the source that hold it; NaN if not known.
    """

    meta: LookMeta
    tiles: NDArray[np.int64]
    sections: NDArray[np.int64]
    shares: NDArray[np.float64]
    peaks: NDArray[np.float64]
    source_area: NDArray[np.float64]

    def evidence(
        self, labels: NDArray[np.int64], class_names: Sequence[str], meanings: dict[str, str] | None
    ) -> Evidence:
        """Return the evidence of all tiles looked at, by ``labels`` (all tiles, target's classes).

        ``class_names`` are the target's, and ``meanings`` those of a job (``ClassMap``).
        """
        classes = ClassMap.between(class_names, self.meta.class_names, meanings)
        codes = [classes.labels(row) for row in labels[self.tiles].tolist()]
        return Evidence(
            labels=np.array(codes, np.int64).reshape(self.peaks.shape),
            shares=self.shares,
            peaks=self.peaks,
            sections=self.sections,
            consistency=self.meta.consistency,
        )

    def presence(
        self, num_tiles: int, class_names: Sequence[str], meanings: dict[str, str] | None
    ) -> NDArray[np.float64]:
        """Return the peaks of all tiles for the target's classes; NaN for tiles not looked at.

        A class of the target that is ignored has 0.
        """
        ids = ClassMap.between(class_names, self.meta.class_names, meanings).ids
        presence = np.full((num_tiles, len(ids)), np.nan)
        known = [number if number < self.peaks.shape[1] else None for number in ids]
        for own, number in enumerate(known):
            presence[self.tiles, own] = 0.0 if number is None else self.peaks[:, number]
        return presence


class LooksUnreadable(ValueError):
    """A file of looks is missing or damaged."""


_METAS = TypeAdapter(list[LookMeta])
_ARRAYS = ("tiles", "sections", "shares", "peaks", "source_area")


def save_looks(path: Path, looks: Sequence[Look]) -> None:
    """Write looks to a file; probabilities are kept as float32."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for number, look in enumerate(looks):
        for name in _ARRAYS:
            array = getattr(look, name)
            kept = array.astype(np.float32) if array.dtype == np.float64 else array
            arrays[f"{name}_{number}"] = kept
    metas = [look.meta.model_dump() for look in looks]
    np.savez_compressed(path, metas=np.array(json.dumps(metas)), allow_pickle=False, **arrays)


def load_looks(path: Path) -> list[Look]:
    """Read the looks of a file.

    Raises:
        LooksUnreadable: there is no such file, or it is damaged.
    """
    try:
        # Opened here: np.load leaves the file of a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            metas = _METAS.validate_json(str(stored["metas"]))
            return [
                Look(
                    meta,
                    tiles=stored[f"tiles_{number}"].astype(np.int64),
                    sections=stored[f"sections_{number}"].astype(np.int64),
                    shares=stored[f"shares_{number}"].astype(np.float64),
                    peaks=stored[f"peaks_{number}"].astype(np.float64),
                    source_area=stored[f"source_area_{number}"].astype(np.float64),
                )
                for number, meta in enumerate(metas)
            ]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise LooksUnreadable(f"the looks in {path.name} cannot be read: {error}") from error
