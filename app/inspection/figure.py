"""Draws one picture of an image, its renderings or segmentations, and a legend."""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# The first eight are the colours of Okabe and Ito, which colour-blind readers can tell apart. The
# others differ from them as much as possible. With more than 16 classes colours come again.
COLOURS = np.array(
    [
        (86, 180, 233),
        (213, 94, 0),
        (0, 158, 115),
        (240, 228, 66),
        (204, 121, 167),
        (0, 114, 178),
        (230, 159, 0),
        (150, 150, 150),
        (51, 34, 136),
        (136, 34, 85),
        (190, 230, 140),
        (255, 170, 187),
        (120, 72, 24),
        (0, 85, 80),
        (190, 170, 255),
        (120, 120, 0),
    ],
    dtype=np.uint8,
)
IGNORED = (0, 0, 0)
_MARGIN = 12
_TEXT = 26
LARGEST_PANEL_PX = 360

_Font = ImageFont.FreeTypeFont
Entry = tuple[str, tuple[int, ...]]
"""A name in the legend, and its colour."""


def comparison(
    images: Mapping[str, NDArray[np.generic]],
    masks: Mapping[str, NDArray[np.uint8]],
    class_names: Sequence[str],
) -> Image.Image:
    """Draw grey images (H, W) and masks (H, W) of class ids side by side, with a legend.

    All have one size. Black is the darkest value of an image and white the brightest. Ignored
    pixels (255) of masks are black.
    """
    panels = {title: _grey(image) for title, image in images.items()}
    panels |= {title: coloured(mask) for title, mask in masks.items()}
    full = next(iter(panels.values())).size
    scale = min(1.0, LARGEST_PANEL_PX / max(full))
    size = (max(1, round(full[0] * scale)), max(1, round(full[1] * scale)))

    font = font_of(15)
    entries = entries_of(class_names)
    width = _MARGIN + max(
        len(panels) * (size[0] + _MARGIN), ceil(sum(_entry_width(entry, font) for entry in entries))
    )
    canvas = Image.new("RGB", (width, size[1] + 2 * _TEXT + 2 * _MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (title, panel) in enumerate(panels.items()):
        left = _MARGIN + index * (size[0] + _MARGIN)
        draw.text((left, _MARGIN // 2), title, fill="black", font=font)
        resample = Image.Resampling.BOX if index < len(images) else Image.Resampling.NEAREST
        canvas.paste(panel.resize(size, resample), (left, _TEXT))
    draw_legend(draw, entries, _TEXT + size[1] + _MARGIN, font, "black")
    return canvas


def _grey(image: NDArray[np.generic]) -> Image.Image:
    """Scale grey values (H, W) so that black is the darkest and white the brightest."""
    values = image.astype(np.float64)
    span = float(values.max() - values.min()) or 1.0
    scaled: NDArray[np.uint8] = ((values - values.min()) / span * 255).astype(np.uint8)
    return Image.fromarray(scaled).convert("RGB")


def coloured(mask: NDArray[np.uint8]) -> Image.Image:
    """Draw class ids (H, W), each in its colour; 255 is black."""
    colours = COLOURS[mask % len(COLOURS)]
    colours[mask == 255] = IGNORED
    return Image.fromarray(colours)


def font_of(size_px: int) -> _Font:
    """Return Pillow's own font at a size in pixels."""
    font = ImageFont.load_default(size=size_px)
    assert isinstance(font, _Font)  # Pillow's wheels have FreeType
    return font


def entries_of(class_names: Sequence[str]) -> list[Entry]:
    """Return the entries of a legend of the classes, by class id."""
    colours = (tuple(map(int, COLOURS[i % len(COLOURS)])) for i in range(len(class_names)))
    return list(zip(class_names, colours, strict=True))


def _entry_width(entry: Entry, font: _Font) -> float:
    return round(font.size) + 5 + font.getlength(entry[0]) + 2 * _MARGIN


def draw_legend(
    draw: ImageDraw.ImageDraw, entries: Sequence[Entry], top: int, font: _Font, ink: str
) -> None:
    """Draw a line of coloured squares and names."""
    side = round(font.size) - 1
    x = float(_MARGIN)
    for name, colour in entries:
        outline = ink if colour == IGNORED else None
        draw.rectangle((x, top, x + side, top + side), fill=colour, outline=outline)
        draw.text((x + side + 6, top - 2), name, fill=ink, font=font)
        x += _entry_width((name, colour), font)
