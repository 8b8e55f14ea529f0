"""Set colours and type of the report's drawings, and write them as SVG on white."""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import matplotlib
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

PALETTE = {
    "surface": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#5b6470",
    "grid": "#dfe3e8",
    "nothing": "#7a828c",
    "images": "#0072b2",
    "labels": "#d55e00",
    "masks": "#00805f",
}
"""The colours of text, of lines, and of the groups of rows (``groups.py``)."""

_RC: dict[RcKeyType, object] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "report",  # ids are the same each time
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    "text.color": PALETTE["ink"],
    "axes.edgecolor": PALETTE["grid"],
    "axes.labelcolor": PALETTE["muted"],
    "axes.labelsize": 12,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": PALETTE["grid"],
    "xtick.color": PALETTE["muted"],
    "ytick.color": PALETTE["muted"],
}


@contextmanager
def drawing(changes: Mapping[RcKeyType, object] | None = None) -> Iterator[None]:
    """Draw in the report's colours and type, with some of matplotlib's settings changed."""
    with matplotlib.rc_context({**_RC, **(changes or {})}), warnings.catch_warnings():
        # A sign that the font lacks is a box in a PNG; an SVG is drawn with the reader's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def to_svg(figure: Figure, title: str) -> str:
    """Write the figure as SVG; the same figure gives the same text.

    ``title`` tells readers who cannot see the figure what it shows.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Title": title, "Date": None, "Creator": None})
    return buffer.getvalue()
