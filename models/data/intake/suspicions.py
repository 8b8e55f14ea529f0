"""Look for what is probably wrong with a domain, though each file by itself can be read.

A few sections are read, a square from the middle of each, so that the cost does not grow with the
domain.

Legend: H height, W width.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from models.data.compatibility import OPPOSITE_COSINE, Square, band_skewness, sample, square
from models.data.domain import IGNORE, Domain
from models.data.intake.findings import Note
from models.data.sections import Section

_MAX_SECTIONS = 24
_MAX_SHIFT_PX = 24
_MIN_SHIFT_PX = 3
_CLEARER = 1.1
"""The factor by which edges must fit better when shifted, before a shift is told."""

_MIN_OUTLINE_PX = 200
_CLEAR_NORM = 0.3


def suspicions(domain: Domain) -> tuple[Note, ...]:
    """Return what looks wrong: masks beside their images, contrast or depth unlike the others."""
    chosen = sample(domain, _MAX_SECTIONS)
    squares = [square(domain, section) for section in chosen]
    found = [
        *_shifted_masks(squares),
        *_inverted_sections(chosen, squares),
        *_mixed_depth(domain, chosen),
    ]
    return tuple(found)


def _shifted_masks(squares: list[Square]) -> Iterator[Note]:
    """Tell if the outlines of all masks fit the edges of the images better at another place."""
    scores = np.zeros((2 * _MAX_SHIFT_PX + 1,) * 2)
    outlines = 0
    for each in squares:
        if each.mask is not None and min(each.image.shape) > 4 * _MAX_SHIFT_PX:
            outline = _outline(each.mask)
            outlines += int(outline.sum())
            scores += _fit(_edges(each.image), outline)
    if outlines < _MIN_OUTLINE_PX:
        return
    best = np.unravel_index(int(scores.argmax()), scores.shape)
    y, x = (int(index) - _MAX_SHIFT_PX for index in best)
    here = scores[_MAX_SHIFT_PX, _MAX_SHIFT_PX]
    if max(abs(y), abs(x)) >= _MIN_SHIFT_PX and scores[best] > _CLEARER * here:
        yield Note(
            "masks",
            "mask_shifted",
            f"The outlines of the masks fit the edges of the images best when the masks are moved "
            f"by {y} pixels down and {x} to the right: look at the contact sheet, and check "
            "whether images and masks were cropped alike.",
        )


def _edges(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the strength of the edges (H, W), smoothed a little against noise, mean 1."""
    values = image.astype(np.float64)
    for axis in (0, 1):
        for _ in range(2):
            values = (np.roll(values, 1, axis) + 2 * values + np.roll(values, -1, axis)) / 4
    down, right = np.gradient(values)
    strength: NDArray[np.float64] = np.hypot(down, right)
    strength[:2] = strength[-2:] = strength[:, :2] = strength[:, -2:] = 0.0
    strength /= strength.mean() or 1.0
    return strength


def _outline(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the pixels (H, W) whose right or lower neighbour has another class."""
    outline = np.zeros(mask.shape, bool)
    outline[:-1] |= mask[:-1] != mask[1:]
    outline[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    known = mask != IGNORE
    outline &= known
    return outline


def _fit(edges: NDArray[np.float64], outline: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the sum of edges under the outline, for each shift of the outline; zero is central."""
    height, width = edges.shape
    padding = ((0, _MAX_SHIFT_PX), (0, _MAX_SHIFT_PX))
    spectrum = np.fft.rfft2(np.pad(edges, padding))
    moved = np.fft.rfft2(np.pad(outline.astype(np.float64), padding))
    shape = (height + _MAX_SHIFT_PX, width + _MAX_SHIFT_PX)
    correlation = np.fft.irfft2(spectrum * np.conj(moved), s=shape)
    shifts = np.arange(-_MAX_SHIFT_PX, _MAX_SHIFT_PX + 1)
    return correlation[np.ix_(shifts % shape[0], shifts % shape[1])]


def _inverted_sections(sections: list[Section], squares: list[Square]) -> Iterator[Note]:
    if len(sections) < 4:
        return
    skewness = np.array([band_skewness(each.image) for each in squares])
    usual = np.median(skewness, axis=0)
    norm = float(np.linalg.norm(usual))
    if norm < _CLEAR_NORM:
        return
    for section, own in zip(sections, skewness, strict=True):
        of_own = float(np.linalg.norm(own))
        if of_own > _CLEAR_NORM and own @ usual < OPPOSITE_COSINE * norm * of_own:
            yield Note(
                section.name,
                "contrast_inverted",
                "What stands out dark in most sections stands out bright in this one: look at it, "
                "and register it as a dataset of its own with `invert` if its contrast is "
                "inverted.",
            )


def _mixed_depth(domain: Domain, sections: list[Section]) -> Iterator[Note]:
    """Tell if sections of one 16-bit dataset use ranges of very different size."""
    natives = [domain.native_image(section) for section in sections]
    if not natives or natives[0].dtype != np.uint16:
        return
    bits = [max(8, int(native.max()).bit_length()) for native in natives]
    if max(bits) - min(bits) >= 2:
        low, high = bits.index(min(bits)), bits.index(max(bits))
        yield Note(
            sections[low].name,
            "mixed_depth",
            f"Its brightest grey value needs {bits[low]} bits, and that of {sections[high].name} "
            f"needs {bits[high]}: sections of one dataset need one grey scale. Register them as "
            "two datasets, or scale them alike.",
        )
