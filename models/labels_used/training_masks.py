"""The masks of target sections that training may use; free of torch.

Legend: H height, W width.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.config.rounds import MaskedSections
from models.data.domain import IGNORE
from models.data.sections import Section


def masked_sections(sections: Sequence[Section], wanted: MaskedSections) -> tuple[Section, ...]:
    """Return the training sections whose masks may be used, in the order of ``sections``.

    ``wanted`` is their number, for which sections are taken evenly spread, or their names.

    Raises:
        ValueError: fewer training sections have a mask, or a name is none of theirs.
    """
    usable = [section for section in sections if section.split == "train" and section.has_mask]
    if isinstance(wanted, tuple):
        names = [section.name for section in usable]
        if unknown := [name for name in wanted if name not in names]:
            raise ValueError(
                f"no training section with a mask is called {unknown[0]!r}: those with a mask are "
                f"{', '.join(names[:20]) or 'none'}"
            )
        return tuple(section for section in usable if section.name in wanted)
    if wanted > len(usable):
        raise ValueError(
            f"{wanted} masked sections are asked for, and {len(usable)} training sections have a "
            "mask: add masks, or ask for fewer"
        )
    # In the middle of as many equal runs of sections.
    places = ((np.arange(wanted) + 0.5) * len(usable) / max(1, wanted)).astype(int)
    return tuple(usable[place] for place in places)


def with_mask(
    labels: NDArray[np.uint8], mask: NDArray[np.uint8], section: Section, rows: slice
) -> NDArray[np.uint8]:
    """Return the labels (H, W) with the classes of the mask (H, W) in some rows.

    A pixel keeps its label where the mask has no class, and where the label is a class that was not
    annotated in the section: there the mask cannot tell.
    """
    unannotated = np.zeros(IGNORE + 1, bool)
    unannotated[list(section.unannotated or ())] = True
    told = mask[rows] != IGNORE
    told &= ~unannotated[labels[rows]]
    new = labels.copy()
    new[rows] = np.where(told, mask[rows], labels[rows])
    return new


def first_rows(height: int, share: float) -> slice:
    """Return the rows of a mask that training uses: this share of them, from the top, rounded."""
    return slice(0, round(share * height))
