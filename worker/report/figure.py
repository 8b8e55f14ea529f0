"""Segmentations side by side, in the manner of the paper's Fig. 3."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from app.figure import (
    IGNORED,
    LARGEST_PANEL_PX,
    MARGIN,
    Entry,
    Font,
    coloured,
    draw_legend,
    entries_of,
    entry_width,
    font_of,
    grey,
)
from worker.report.numbers import plain

_PER_LINE = 5
_TEXT_PX = 23  # read well where the picture is shown at half its size
_BAR_PX, _LEGEND_PX = 40, 38
_PAPER, _BAR = (16, 18, 22), (38, 43, 51)


@dataclass(frozen=True)
class Panel:
    """A titled picture (H, W): either of grey values, or of class ids with 255 to ignore."""

    title: str
    image: NDArray[np.generic] | None = None
    classes: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if (self.image is None) == (self.classes is None):
            raise ValueError(f"panel {self.title!r} needs either an image or classes")

    def drawn(self, size: tuple[int, int] | None = None) -> Image.Image:
        """At its own size, or another; class ids have no values between them."""
        if self.image is not None:
            drawn, resample = grey(self.image), Image.Resampling.BOX
        else:
            assert self.classes is not None
            drawn, resample = coloured(self.classes), Image.Resampling.NEAREST
        return drawn if size is None else drawn.resize(size, resample)


def qualitative(panels: Sequence[Panel], class_names: Sequence[str]) -> bytes:
    """Draw panels in lines under each other, over a legend of the classes: a PNG.

    All are of one shape (H, W). Each is captioned in white, cut where it is too long. Ignored
    pixels are black and, where there are any, in the legend.
    """
    full = panels[0].drawn().size
    scale = LARGEST_PANEL_PX / max(full)
    size = (max(1, round(full[0] * scale)), max(1, round(full[1] * scale)))
    lines = ceil(len(panels) / _PER_LINE)
    columns = ceil(len(panels) / lines)
    pitch = (size[0] + MARGIN, size[1] + _BAR_PX + MARGIN)
    font = font_of(_TEXT_PX)
    legend = _wrapped(_entries(panels, class_names), columns * pitch[0], font)

    under = MARGIN + lines * pitch[1]
    full_size = (MARGIN + columns * pitch[0], under + len(legend) * _LEGEND_PX)
    canvas = Image.new("RGB", full_size, _PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, panel in enumerate(panels):
        line, place = divmod(index, columns)
        left, top = MARGIN + place * pitch[0], MARGIN + line * pitch[1]
        canvas.paste(panel.drawn(size), (left, top))
        top += size[1]
        draw.rectangle((left, top, left + size[0] - 1, top + _BAR_PX - 1), fill=_BAR)
        title = _cut(panel.title, size[0] - MARGIN, font)
        middle = (left + size[0] // 2, top + _BAR_PX // 2)
        draw.text(middle, title, fill="white", font=font, anchor="mm")
    for index, entries in enumerate(legend):
        draw_legend(draw, entries, under + index * _LEGEND_PX, font, "white")
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _entries(panels: Sequence[Panel], class_names: Sequence[str]) -> list[Entry]:
    masks = [panel.classes for panel in panels if panel.classes is not None]
    ignored = any((mask == 255).any() for mask in masks)
    return entries_of(class_names) + ([("not annotated", IGNORED)] if ignored else [])


def _wrapped(entries: Sequence[Entry], width: float, font: Font) -> list[list[Entry]]:
    """In lines that fit, each name cut where it would not fit a line alone."""
    lines: list[list[Entry]] = []
    room = 0.0
    for name, colour in entries:
        entry = (_cut(name, width - entry_width(("", colour), font), font), colour)
        if not lines or entry_width(entry, font) > room:
            lines.append([])
            room = width
        lines[-1].append(entry)
        room -= entry_width(entry, font)
    return lines


def _cut(text: str, width: float, font: Font) -> str:
    """On one line and not wider than ``width``."""
    flat = plain(text)
    if font.getlength(flat) <= width:
        return flat
    while flat and font.getlength(f"{flat}...") > width:
        flat = flat[:-1]
    return f"{flat}..."
