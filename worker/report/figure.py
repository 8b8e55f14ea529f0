"""Draw segmentations side by side, in the manner of the paper's Fig. 3."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.typing import RcKeyType
from numpy.typing import NDArray

from app.inspection.figure import IGNORED, LARGEST_PANEL_PX, coloured, entries_of
from worker.report.drawing import drawing
from worker.report.numbers import short

_PER_LINE = 5
_TITLE_PX, _LEGEND_PX = 42, 36
_FONT_PX = 21  # read well where the picture is shown at half its size
_SIGN_PX = 0.6 * _FONT_PX  # the width of a letter
_DPI = 72  # a point is a pixel
_FONT: dict[RcKeyType, object] = {
    "font.size": _FONT_PX,
    "axes.titlesize": _FONT_PX,
    "axes.titleweight": "normal",
}


@dataclass(frozen=True)
class Panel:
    """A titled picture (H, W): either of grey values, or of class ids with 255 to ignore."""

    title: str
    image: NDArray[np.generic] | None = None
    classes: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if (self.image is None) == (self.classes is None):
            raise ValueError(f"panel {self.title!r} needs either an image or classes")

    @property
    def pixels(self) -> NDArray[np.generic]:
        """Return grey values (H, W), or colours of classes (H, W, 3)."""
        if self.image is not None:
            return self.image
        assert self.classes is not None
        return np.asarray(coloured(self.classes))


def qualitative(panels: Sequence[Panel], class_names: Sequence[str]) -> bytes:
    """Draw panels in lines under each other, over a legend of the classes: a PNG.

    All panels are of one shape (H, W). Grey values are drawn from the darkest to the brightest;
    long names are cut. Ignored pixels are black and, where there are any, in the legend.
    """
    lines = ceil(len(panels) / _PER_LINE)
    columns = ceil(len(panels) / lines)
    height, width = panels[0].pixels.shape[:2]
    scale = LARGEST_PANEL_PX / max(height, width)
    across = columns * (scale * width + 12)
    entries = _legend(panels, class_names)
    longest = max((len(name) for name, _ in entries), default=0)
    per_line = max(1, int(across / (_SIGN_PX * (longest + 4))))
    down = lines * (scale * height + _TITLE_PX) + ceil(len(entries) / per_line) * _LEGEND_PX
    with drawing(_FONT):
        figure = Figure((across / _DPI, down / _DPI), dpi=_DPI, layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, panel in zip(grid.flat, panels, strict=False):
            # Class ids have no values between them.
            interpolation = "nearest" if panel.image is None else "auto"
            axes.imshow(panel.pixels, cmap="gray", interpolation=interpolation)
            axes.set_title(short(panel.title, int(scale * width / _SIGN_PX)), loc="center")
        handles = [Patch(color=colour, label=name) for name, colour in entries]
        figure.legend(handles=handles, loc="outside lower left", ncols=per_line, frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _legend(panels: Sequence[Panel], class_names: Sequence[str]) -> list[tuple[str, str]]:
    """Pair the name of each class with its colour, as ``#rrggbb``."""
    masks = [panel.classes for panel in panels if panel.classes is not None]
    entries = entries_of(class_names)
    if any((mask == 255).any() for mask in masks):
        entries.append(("not annotated", IGNORED))
    return [(short(name, 32), f"#{bytes(colour).hex()}") for name, colour in entries]
