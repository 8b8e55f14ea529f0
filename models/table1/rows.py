"""The rows of Table 1 as compositions: what is trained, and how it is tested; free of torch.

``methods.py`` trains what is named here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from models.table1.results import RowName

Styler = Literal["none", "cut", "histogram", "fourier"]
"""What renders target images in the source's style: nothing, or one of these."""

MethodName = Literal[
    "source-only",
    "y-net",
    "paul",
    "paul-no-advl",
    "paul-no-advl-cut",
    "stylefilter",
    "filter-without-style",
    "unfiltered",
    "stylefilter-histogram",
    "stylefilter-fourier",
    "adabn",
    "adabn-cut",
    "target-only",
]
"""What is trained; several rows may test one training."""


@dataclass(frozen=True)
class Row:
    """A trained method, and how its segmenter is tested."""

    method: MethodName
    styler: Styler = "none"
    filtered: bool = False
    """Whether the test images' own labels filter the prediction."""


ROWS: dict[RowName, Row] = {
    "source-only": Row("source-only"),
    "cut": Row("source-only", "cut"),
    "y-net": Row("y-net"),
    "paul": Row("paul"),
    "paul-no-advl": Row("paul-no-advl"),
    "paul-no-advl-cut": Row("paul-no-advl-cut", "cut"),
    "stylefilter-no-cut": Row("stylefilter"),
    "stylefilter": Row("stylefilter", "cut"),
    "target-only": Row("target-only"),
    "filter-without-style": Row("filter-without-style"),
    "unfiltered": Row("unfiltered", "cut"),
    "filter-at-test": Row("stylefilter", "cut", filtered=True),
    "histogram": Row("source-only", "histogram"),
    "fourier": Row("source-only", "fourier"),
    "adabn": Row("adabn"),
    "adabn-cut": Row("adabn-cut", "cut"),
    "stylefilter-histogram": Row("stylefilter-histogram", "histogram"),
    "stylefilter-fourier": Row("stylefilter-fourier", "fourier"),
}

TRAINED_ON: dict[MethodName, Styler] = {
    "y-net": "none",
    "paul": "none",
    "paul-no-advl": "none",
    "paul-no-advl-cut": "cut",
    "stylefilter": "cut",
    "filter-without-style": "none",
    "unfiltered": "cut",
    "stylefilter-histogram": "histogram",
    "stylefilter-fourier": "fourier",
    "adabn": "none",
    "adabn-cut": "cut",
}
"""How the target images look that a method adapts with; the others do not adapt."""

CLASSIFY_TILES: tuple[MethodName, ...] = ("paul", "paul-no-advl", "paul-no-advl-cut")
"""Methods that predict which classes are in a labelled image, of which they have to see all."""

ESTIMATES_STATISTICS: tuple[MethodName, ...] = ("adabn", "adabn-cut")
"""Methods that only estimate batch norm's statistics anew, which a segmenter must have."""

_WITHOUT_LABELS = ("source-only", "y-net", "unfiltered", *ESTIMATES_STATISTICS, "target-only")


def rows_by_method(rows: Iterable[RowName]) -> dict[MethodName, tuple[RowName, ...]]:
    """What has to be trained for these rows, in the table's order, each with its rows."""
    wanted, found = set(rows), dict[MethodName, tuple[RowName, ...]]()
    for name, row in ROWS.items():
        if name in wanted:
            found[row.method] = (*found.get(row.method, ()), name)
    return found


def needs_style(method: MethodName, rows: Iterable[RowName]) -> bool:
    """Whether training the method, or testing it as these rows do, takes a style model."""
    return "cut" in (TRAINED_ON.get(method), *(ROWS[row].styler for row in rows))


def uses_labels(method: MethodName) -> bool:
    """Whether image-level labels of the target take part in the training."""
    return method not in _WITHOUT_LABELS
