"""The image-level labels of the target's training tiles, as a whole; free of torch.

Legend: C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.data.domain import Domain
from models.data.labels import PRESENT, UNKNOWN
from models.data.sections import Section

LABEL_CACHE_BYTES = 128 << 20
"""The memory for each cache of rounds: of probabilities, of labels, and of source-only labels.

A section that is not in the cache is labelled again when a crop of it is drawn."""

SAYS_NOTHING = 0.9
"""The share of labels that call a class present, from which they say nothing of its place."""


@dataclass(frozen=True)
class TrainingLabels:
    """The labels of the target's training tiles.

    ``num_tiles`` counts the tiles with a known label. ``present_share`` (C,) is the share of known
    labels that are *present*, NaN for a class without a known label. ``tile_px`` is the typical
    side of a labelled tile at the working size: the root of the median area; None without tiles.
    """

    num_tiles: int
    present_share: NDArray[np.float64]
    tile_px: int | None

    @classmethod
    def of(cls, target: Domain) -> Self:
        """Count the labels of a target.

        Raises:
            ValueError: the target has no training sections.
        """
        windows = [target.tile_windows(section) for section in target.training_sections()]
        labels = np.concatenate([each.labels for each in windows])
        known = (labels != UNKNOWN).any(axis=1)
        y0, y1, x0, x1 = np.concatenate([each.edges for each in windows])[known].T
        side = np.sqrt(np.median((y1 - y0) * (x1 - x0))) if known.any() else None
        return cls(
            num_tiles=int(known.sum()),
            present_share=_share(labels == PRESENT, labels != UNKNOWN),
            tile_px=None if side is None else max(1, round(float(side))),
        )

    @property
    def uninformative(self) -> NDArray[np.bool_]:
        """Tell for each class, (C,), whether nearly every label calls it present."""
        return self.present_share >= SAYS_NOTHING


def spread(target: Domain, number: int) -> Sequence[Section]:
    """Return up to ``number`` training sections with labelled tiles, evenly spread."""
    labelled = {tile.section for tile in target.labelled_tiles(["train"])}
    sections = [section for section in target.split("train") if section.index in labelled]
    places = np.linspace(0, len(sections) - 1, min(number, len(sections))).round().astype(int)
    return [sections[place] for place in places]


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> NDArray[np.float64]:
    counts = whole.sum(axis=0)
    share: NDArray[np.float64] = np.full(len(counts), np.nan)
    np.divide(part.sum(axis=0), counts, out=share, where=counts > 0)
    return share
