"""Table 1's rows, and the methods that they test: the one place that knows them; free of torch.

A new row is one entry in ``ROWS``, with its method; the API, the benchmark's jobs and its report
follow. ``training.py`` trains what is named here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import GetPydanticSchema
from pydantic_core import core_schema

from models.config import StyleFilterConfig

Styler = Literal["none", "cut", "histogram", "fourier"]
"""The way in which target images are stylised: not at all, or by one of these."""


@dataclass(frozen=True)
class Method:
    """A way to train a segmenter; several rows may test one training."""

    name: str
    adapt: str | None = None
    """Names the function that adapts the source-only segmenter, as ``pkgutil.resolve_name`` reads
    it: a name and no function, for those import torch. None: the method adapts nothing."""
    trained_on: Styler = "none"
    """How the target images that the method adapts with are stylised."""
    masks_of: Literal["source", "target"] = "source"
    """The domain whose masks train the segmenter first."""
    uses_labels: bool = False
    """Image-level labels of the target take part in the training."""
    classifies_tiles: bool = False
    """The method predicts the classes of a labelled tile, so a crop must hold a whole tile."""
    estimates_statistics: bool = False
    """The method trains nothing and estimates batch norm's statistics, so it needs batch norm."""
    changes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """The fields of the config, by section, that make the method what it is."""

    def changed(self, config: StyleFilterConfig) -> StyleFilterConfig:
        """Return ``config`` with the method's own values, whatever it said before."""
        return config.changed(self.changes)


@dataclass(frozen=True)
class Row:
    """A row of the table: a method, and how its segmenter is tested."""

    title: str
    method: Method
    tested_on: Styler = "none"
    """How the test images are stylised."""
    filtered: bool = False
    """The test images' own labels filter the prediction."""
    paper: bool = False
    """The paper has the row; it never ran the others."""


_ADABN = "models.adaptation:adapt_statistics"
_PAUL = "models.baselines.weak_labels:adapt_weak_labels"
_SELF_TRAINING = "models.stylefilter:adapt_segmenter"
_YNET = "models.baselines.ynet:adapt_ynet"

_FILTER = {"adaptation": {"label_filter": True}}
_NO_FILTER = {"adaptation": {"label_filter": False}}
_NO_ADVERSARY = {"weak_labels": {"weight_class_alignment": 0.0, "weight_output_alignment": 0.0}}
_ESTIMATE = {
    "adaptation": {"norm_statistics": "target", "select_on": "last"}
}  # one result, no choice

SOURCE_ONLY = Method("source-only")
STYLEFILTER = Method("stylefilter", _SELF_TRAINING, "cut", uses_labels=True, changes=_FILTER)

ROWS: dict[str, Row] = {
    "source-only": Row("Source-only", SOURCE_ONLY, paper=True),
    "cut": Row("CUT", SOURCE_ONLY, "cut", paper=True),
    "y-net": Row("Y-Net", Method("y-net", _YNET), paper=True),
    "paul": Row(
        "Paul et al.", Method("paul", _PAUL, uses_labels=True, classifies_tiles=True), paper=True
    ),
    "paul-no-advl": Row(
        "Paul et al. \\ AdvL",
        Method(
            "paul-no-advl",
            _PAUL,
            uses_labels=True,
            classifies_tiles=True,
            changes=_NO_ADVERSARY,
        ),
        paper=True,
    ),
    "paul-no-advl-cut": Row(
        "Paul et al. \\ AdvL + CUT",
        Method(
            "paul-no-advl-cut",
            _PAUL,
            "cut",
            uses_labels=True,
            classifies_tiles=True,
            changes=_NO_ADVERSARY,
        ),
        "cut",
        paper=True,
    ),
    "stylefilter-no-cut": Row("StyleFilter \\ CUT", STYLEFILTER, paper=True),
    "stylefilter": Row("StyleFilter", STYLEFILTER, "cut", paper=True),
    "target-only": Row("Target-only", Method("target-only", masks_of="target"), paper=True),
    "filter-without-style": Row(
        "Filter without style",
        Method("filter-without-style", _SELF_TRAINING, uses_labels=True, changes=_FILTER),
    ),
    "unfiltered": Row(
        "StyleFilter \\ filter (Eq. 2)",
        Method("unfiltered", _SELF_TRAINING, "cut", changes=_NO_FILTER),
        "cut",
    ),
    "filter-at-test": Row("StyleFilter + filter at test", STYLEFILTER, "cut", filtered=True),
    "histogram": Row("Histogram matching", SOURCE_ONLY, "histogram"),
    "fourier": Row("Fourier domain adaptation", SOURCE_ONLY, "fourier"),
    "adabn": Row("AdaBN", Method("adabn", _ADABN, estimates_statistics=True, changes=_ESTIMATE)),
    "adabn-cut": Row(
        "AdaBN + CUT",
        Method("adabn-cut", _ADABN, "cut", estimates_statistics=True, changes=_ESTIMATE),
        "cut",
    ),
    "stylefilter-histogram": Row(
        "StyleFilter, histogram for CUT",
        Method(
            "stylefilter-histogram", _SELF_TRAINING, "histogram", uses_labels=True, changes=_FILTER
        ),
        "histogram",
    ),
    "stylefilter-fourier": Row(
        "StyleFilter, Fourier for CUT",
        Method("stylefilter-fourier", _SELF_TRAINING, "fourier", uses_labels=True, changes=_FILTER),
        "fourier",
    ),
}
"""All rows in the table's order: the paper's nine, then those it never ran."""

METHODS: dict[str, Method] = {row.method.name: row.method for row in ROWS.values()}

RowName = Annotated[
    str, GetPydanticSchema(lambda _type, _handler: core_schema.literal_schema(list(ROWS)))
]
"""A name in ``ROWS``; in a schema, an enumeration of them."""

MethodName = Annotated[
    str, GetPydanticSchema(lambda _type, _handler: core_schema.literal_schema(list(METHODS)))
]
"""A name in ``METHODS``."""


def rows_by_method(rows: Iterable[RowName]) -> dict[MethodName, tuple[RowName, ...]]:
    """Return what has to be trained for ``rows``, in the table's order, each with its rows."""
    wanted, found = set(rows), dict[MethodName, tuple[RowName, ...]]()
    for name, row in ROWS.items():
        if name in wanted:
            found[row.method.name] = (*found.get(row.method.name, ()), name)
    return found


def needs_style(method: MethodName, rows: Iterable[RowName]) -> bool:
    """Tell whether training the method, or testing it as ``rows`` do, takes a style model."""
    return "cut" in (METHODS[method].trained_on, *(ROWS[row].tested_on for row in rows))
