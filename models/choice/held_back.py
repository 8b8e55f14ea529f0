"""Labels that training does not see, so that trained candidates can be judged; free of torch."""

from dataclasses import dataclass

import numpy as np

from models.data.domain import Domain
from models.data.tiles import without_labels

_LEAST_SECTIONS = 8  # of fewer sections a quarter is too few to judge by: then parts of each


@dataclass(frozen=True)
class Divided:
    """A target whose training labels are divided: ``training`` has some, ``judging`` the others."""

    training: Domain
    judging: Domain


def hold_back(target: Domain, share: float) -> Divided:
    """Divide the labels of the training sections; those of other sections stay in both.

    With eight or more labelled sections whole ones are held back, evenly spread, since neighbours
    within a section look alike. With fewer the tiles at the top of each section are.
    """
    tiles = target.labelled_tiles(["train"])
    labelled = sorted({tile.section for tile in tiles})
    if len(labelled) >= _LEAST_SECTIONS:
        number = max(1, round(share * len(labelled)))
        # In the middle of as many equal runs of sections.
        places = ((np.arange(number) + 0.5) * len(labelled) / number).astype(int)
        chosen = {labelled[place] for place in places}
        held = {id(tile) for tile in tiles if tile.section in chosen}
    else:
        heights = {section.index: section.height for section in target.sections}
        held = {
            id(tile) for tile in tiles if tile.y0 + tile.height / 2 < share * heights[tile.section]
        }
    both = {id(tile) for tile in tiles}
    return Divided(without_labels(target, held), without_labels(target, both - held))
