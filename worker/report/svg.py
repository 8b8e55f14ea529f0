"""Write matplotlib figures as SVG on white; the same figure gives the same text."""

import io
import warnings

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
"""Colours of text, of lines, and of what a row used of the target (``groups.py``)."""

RC: dict[RcKeyType, object] = {
    "svg.fonttype": "none",  # text stays text
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


def to_svg(figure: Figure, name: str, title: str) -> str:
    """Write the figure as SVG; ``title`` says what it shows, to those who cannot see it."""
    buffer = io.StringIO()
    metadata = {"Title": title, "Date": None, "Creator": None}
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}), warnings.catch_warnings():
        # The reader's browser has the glyphs, or not; this machine's fonts only measure.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="svg", metadata=metadata)
    return buffer.getvalue()
