"""Turns matplotlib's SVG into one that fits a page: its colours, its font, its own ids."""

import io
import re
import warnings
from typing import NamedTuple
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ElementTree.register_namespace("", _SVG)


class Colour(NamedTuple):
    light: str
    dark: str


PALETTE = {
    "surface": Colour("#ffffff", "#161a20"),
    "ink": Colour("#1b1f24", "#e8eaed"),
    "muted": Colour("#5b6470", "#a3acb8"),
    "grid": Colour("#dfe3e8", "#323a45"),
    "nothing": Colour("#7a828c", "#9aa3ad"),
    "images": Colour("#0072b2", "#56b4e9"),
    "labels": Colour("#d55e00", "#f58f4a"),
    "masks": Colour("#00805f", "#3fc79a"),
}
"""Text, lines, and what a row knew of the target (``groups.py``); no two light ones are equal."""

RC: dict[RcKeyType, object] = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    "text.color": PALETTE["ink"].light,
    "axes.edgecolor": PALETTE["grid"].light,
    "axes.facecolor": "none",
    "axes.labelcolor": PALETTE["muted"].light,
    "axes.labelsize": 12,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": PALETTE["muted"].light,
    "ytick.color": PALETTE["muted"].light,
    "figure.facecolor": "none",
}


def to_svg(figure: Figure, name: str, words: str) -> str:
    """The drawing; ``words`` say what it shows. The same figure gives the same text.

    Colours are custom properties of the page (``--ink``) with their light values to fall back on.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}), warnings.catch_warnings():
        # The reader's browser has the glyphs, or not; this machine's fonts only measure.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for tag in ("metadata", "defs"):  # of the whole: a date, and a style for all of the page
        for element in root.findall(f"{{{_SVG}}}{tag}"):
            root.remove(element)
    root.set("stroke-linejoin", "round")
    for element in root.iter():
        _fit(element, name)
        _share_style(element)
    width, height = (root.get("viewBox") or "").split()[2:]
    root.attrib |= {"width": width, "height": height, "role": "img", "aria-label": words}
    title = ElementTree.Element(f"{{{_SVG}}}title")
    title.text = words
    root.insert(0, title)
    return ElementTree.tostring(root, encoding="unicode")


def on_paper(svg: str) -> str:
    """As a file of its own, on the light surface."""
    start = svg.index(">") + 1
    paper = f'<rect width="100%" height="100%" fill="{PALETTE["surface"].light}"/>'
    return f"{svg[:start]}{paper}{svg[start:]}\n"


def _fit(element: ElementTree.Element, name: str) -> None:
    """Several drawings on one page must not share an id; colours follow the page."""
    for key, value in list(element.attrib.items()):
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key == f"{{{_LINK}}}href":
            del element.attrib[key]
            element.set("href", value.replace("#", f"#{name}-"))
        else:
            fitted = value.replace("url(#", f"url(#{name}-")
            element.set(key, _themed(fitted) if key == "style" else fitted)


def _share_style(element: ElementTree.Element) -> None:
    """Markers of a series look alike: said once, a chart is half as large."""
    styles = {child.get("style") for child in element if child.tag == f"{{{_SVG}}}use"}
    if len(element) > 1 and len(styles) == 1 and None not in styles:
        element.set("style", element[0].attrib["style"])
        for child in element:
            child.attrib.pop("style", None)


def _themed(style: str) -> str:
    for name, colour in PALETTE.items():
        style = re.sub(rf"{colour.light}(?![0-9a-f])", f"var(--{name}, {colour.light})", style)
    return re.sub(r"'DejaVu Sans'[^;]*", "system-ui, 'DejaVu Sans', sans-serif", style)
