"""One picture: an image, several segmentations of it, and a legend."""

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
    image: NDArray[np.generic],
    masks: Mapping[str, NDArray[np.uint8]],
    class_names: Sequence[str],
) -> Image.Image:
    """Draw the grey image (H, W) and each mask (H, W) of class ids side by side, with a legend.

    Ignored pixels (255) are black.
    """
    grey = image.astype(np.float64)
    span = max(float(grey.max() - grey.min()), 1.0)
    panels = {"target image": Image.fromarray(((grey - grey.min()) / span * 255).astype(np.uint8))}
    panels |= {title: Image.fromarray(_coloured(mask)) for title, mask in masks.items()}
    scale = min(1.0, _LARGEST_PANEL_PX / max(image.shape))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))

    font = ImageFont.load_default(size=15)
    entries = [20 + font.getlength(name) + 2 * _MARGIN for name in class_names]
    width = _MARGIN + max(len(panels) * (size[0] + _MARGIN), ceil(sum(entries)))
    canvas = Image.new("RGB", (width, size[1] + 2 * _TEXT + 2 * _MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (title, panel) in enumerate(panels.items()):
        x = _MARGIN + index * (size[0] + _MARGIN)
        draw.text((x, _MARGIN // 2), title, fill="black", font=font)
        resample = Image.Resampling.NEAREST if index else Image.Resampling.BOX
        canvas.paste(panel.convert("RGB").resize(size, resample), (x, _TEXT))
    x = float(_MARGIN)
    y = _TEXT + size[1] + _MARGIN
    for index, (name, entry) in enumerate(zip(class_names, entries, strict=True)):
        colour = tuple(int(part) for part in _COLOURS[index % len(_COLOURS)])
        draw.rectangle((x, y, x + 14, y + 14), fill=colour)
        draw.text((x + 20, y - 2), name, fill="black", font=font)
        x += entry
    return canvas


def _coloured(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    coloured = _COLOURS[mask % len(_COLOURS)]
    coloured[mask == 255] = 0
    return coloured
