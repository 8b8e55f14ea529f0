"""The same pixels from PNG and TIFF: grey out of channels and palettes, turned upright.

Legend: H height, W width, S samples of a pixel.
"""

import numpy as np
from numpy.typing import NDArray

from models.data.readers.limits import Array, ImageError

UPRIGHT = 1
"""The orientation of a picture whose first row is its top and whose first column its left."""


def grey_of(samples: Array, *, alpha: bool, channel: int | None) -> Array:
    """Return one channel (H, W) of (H, W, S): the one that is named, or the grey of all.

    ``alpha`` says that the last sample is the opacity.

    Raises:
        ImageError: no channel is named and channels differ, or a pixel is transparent; or the
            channel that is named is not there.
    """
    count = samples.shape[-1]
    if channel is not None:
        if channel >= count:
            raise ImageError(f"has {count} channels, and none with the number {channel}")
        return samples[..., channel]
    colours = samples[..., :-1] if alpha else samples
    if alpha:
        kind, bits = samples.dtype.kind, 8 * samples.dtype.itemsize
        opaque = 1 if kind == "f" else (1 << bits - (kind == "i")) - 1
        if (samples[..., -1] != opaque).any():
            raise ImageError("has transparent pixels: save it without transparency")
    if (colours[..., 1:] != colours[..., :1]).any():
        raise ImageError(
            "is a colour picture, its channels differ: convert it to one grey channel, or name one "
            "in reading.channel"
        )
    return colours[..., 0]


def shown_by_palette(indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grey values (H, W) that a palette (N, 3) gives to indices (H, W).

    Raises:
        ImageError: the palette has colours, or too few entries.
    """
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=1))
    if used[-1] >= len(palette):
        raise ImageError(f"holds the palette index {used[-1]}, and has {len(palette)} entries")
    if (palette[used, 1:] != palette[used, :1]).any():
        raise ImageError(
            "is shown in colours by its palette: save it as grey values (in Fiji: Image > Lookup "
            "Tables > Grays)"
        )
    return palette[:, 0][indices]


def turned(section: Array, orientation: int) -> Array:
    """Return a section (H, W) as viewers show it, by its orientation 1 to 8 of TIFF and EXIF."""
    if orientation in (5, 6, 7, 8):
        section = section.T
    down, right = _BACKWARDS.get(orientation, (False, False))
    return section[:: -1 if down else 1, :: -1 if right else 1]


# By orientation: whether rows, and columns, run backwards once the section is transposed.
_BACKWARDS = {
    2: (False, True),
    3: (True, True),
    4: (True, False),
    6: (False, True),
    7: (True, True),
    8: (True, False),
}
