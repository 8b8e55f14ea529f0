"""The labelled tiles of a target by which candidates are compared; free of torch."""

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from models.choice.label_scores import FEW_TILES, LEAST_TILES
from models.choice.mask_scores import MaskPart
from models.data.domain import Domain
from models.data.labels import ABSENT, PRESENT
from models.data.sections import Section, Split

_LEAST_SECTIONS = 6  # of which a half may be of an odd kind


@dataclass(frozen=True)
class Jury:
    """The sections whose labelled tiles compare candidates; ``seen`` if training read them.

    ``masks`` compare them too, and decide if there are any.
    """

    target: Domain
    sections: tuple[Section, ...]
    num_tiles: int
    seen: bool
    masks: tuple[MaskPart, ...] = ()

    @property
    def kept_back(self) -> bool:
        """Tell whether something that compares candidates was kept back from training."""
        return bool(self.masks) or not self.seen


def jury(target: Domain) -> Jury:
    """Return the validation sections with labels, or else the training sections with labels.

    The validation sections serve if they have 60 labelled tiles, and a class that five of them
    call present and five absent. Labels of test sections are never read: those sections are for
    the final scores.
    """
    if len(target.labelled_tiles(["val"])) >= FEW_TILES and judged(target, "val").any():
        return _jury(target, "val", seen=False)
    return training_jury(target)


def judged(target: Domain, split: Split) -> NDArray[np.bool_]:
    """Tell for each class, (C,), whether five tiles of a split call it present, and five absent."""
    tiles = target.labelled_tiles([split])
    labels = np.array([tile.labels for tile in tiles]).reshape(-1, target.num_classes)
    counts = np.stack([(labels == state).sum(axis=0) for state in (ABSENT, PRESENT)])
    return np.asarray((counts >= LEAST_TILES).all(axis=0))


def training_jury(target: Domain) -> Jury:
    """Return the training sections with labels: more of them, and of more places, than others."""
    return _jury(target, "train", seen=True)


def thinned(jury: Jury, num_tiles: int) -> Jury:
    """Return sections of a jury, evenly spread, that hold about so many tiles; six or more of them.

    Neighbouring tiles look alike, so thousands of them tell little more than hundreds.
    """
    share = num_tiles / max(1, jury.num_tiles)
    number = max(_LEAST_SECTIONS, ceil(share * len(jury.sections)))
    if number >= len(jury.sections):
        return jury
    places = np.linspace(0, len(jury.sections) - 1, number).round().astype(int)
    sections = tuple(jury.sections[place] for place in places)
    kept = {section.index for section in sections}
    tiles = jury.target.labelled_tiles([section.split for section in sections])
    return replace(jury, sections=sections, num_tiles=sum(tile.section in kept for tile in tiles))


def contradictions(target: Domain, sections: tuple[Section, ...]) -> int:
    """Count the labels *present* of tiles that other tiles cover wholly and call *absent*."""
    found = 0
    for section in sections:
        tiles = target.tile_windows(section)
        for labels in tiles.labels.T:
            absent = np.zeros(target.working_shape(section), dtype=bool)
            for y0, y1, x0, x1 in tiles.edges[labels == ABSENT]:
                absent[y0:y1, x0:x1] = True
            windows = (absent[y0:y1, x0:x1] for y0, y1, x0, x1 in tiles.edges[labels == PRESENT])
            found += sum(bool(window.size and window.all()) for window in windows)
    return found


def _jury(target: Domain, split: Split, *, seen: bool) -> Jury:
    tiles = target.labelled_tiles([split])
    known = {tile.section for tile in tiles}
    sections = tuple(section for section in target.split(split) if section.index in known)
    return Jury(target, sections, len(tiles), seen)
