"""One picture: an image, several renderings or segmentations of it, and a legend."""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's colours, told apart by colour-blind readers too; reused beyond eight classes.
_COLOURS = np.array(
    [
        (86, 180, 233),
        (213, 94, 0),
        (0, 158, 115),
        (240, 228, 66),
        (204, 121, 167),
        (0, 114, 178),
        (230, 159, 0),
        (150, 150, 150),
    ],
    dtype=np.uint8,
)
_MARGIN, _TEXT = 12, 26
_LARGEST_PANEL_PX = 360


def comparison(
    images: Mapping[str, NDArray[np.generic]],
    masks: Mapping[str, NDArray[np.uint8]],
    class_names: Sequence[str],
) -> Image.Image:
    """Draw grey images (H, W) and masks (H, W) of class ids side by side, with a legend.

    All are of one size. Images are drawn from their darkest to their brightest value; ignored
    pixels (255) of masks are black.
    """
    panels = {title: Image.fromarray(_grey(image)) for title, image in images.items()}
    panels |= {title: Image.fromarray(_coloured(mask)) for title, mask in masks.items()}
    full = next(iter(panels.values())).size
    scale = min(1.0, _LARGEST_PANEL_PX / max(full))
    size = (max(1, round(full[0] * scale)), max(1, round(full[1] * scale)))

    font = ImageFont.load_default(size=15)
    entries = [20 + font.getlength(name) + 2 * _MARGIN for name in class_names]
    width = _MARGIN + max(len(panels) * (size[0] + _MARGIN), ceil(sum(entries)))
    canvas = Image.new("RGB", (width, size[1] + 2 * _TEXT + 2 * _MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (title, panel) in enumerate(panels.items()):
        left = _MARGIN + index * (size[0] + _MARGIN)
        draw.text((left, _MARGIN // 2), title, fill="black", font=font)
        resample = Image.Resampling.BOX if index < len(images) else Image.Resampling.NEAREST
        canvas.paste(panel.convert("RGB").resize(size, resample), (left, _TEXT))
    x = float(_MARGIN)
    y = _TEXT + size[1] + _MARGIN
    for index, (name, entry) in enumerate(zip(class_names, entries, strict=True)):
        colour = tuple(int(part) for part in _COLOURS[index % len(_COLOURS)])
        draw.rectangle((x, y, x + 14, y + 14), fill=colour)
        draw.text((x + 20, y - 2), name, fill="black", font=font)
        x += entry
    return canvas


def _grey(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    grey = image.astype(np.float64)
    span = float(grey.max() - grey.min()) or 1.0
    scaled: NDArray[np.uint8] = ((grey - grey.min()) / span * 255).astype(np.uint8)
    return scaled


def _coloured(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    coloured = _COLOURS[mask % len(_COLOURS)]
    coloured[mask == 255] = 0
    return coloured
