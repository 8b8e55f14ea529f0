"""The rows of Table 1, and the methods that they test; free of torch.

A new row is one entry in ``ROWS``, with its method. The API, the benchmark's jobs and its report
read the entry, and ``training.py`` trains the method.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import GetPydanticSchema
from pydantic_core import core_schema

from models.config.stylefilter import StyleFilterConfig

StyliserName = Literal["none", "cut", "histogram", "fourier"]
"""The way in which target images are stylised: not at all, or by one of these."""


@dataclass(frozen=True)
class Method:
    """A way to train a segmenter; several rows may test one training."""

    name: str
    adapt: str | None = None
    """The name of the function that adapts the source-only segmenter, for ``pkgutil.resolve_name``;
    the function itself would import torch. None if the method adapts nothing."""
    trained_on: StyliserName = "none"
    """The way in which the target images that the method trains on are stylised."""
    masks_of: Literal["source", "target"] = "source"
    """The domain whose masks train the segmenter first."""
    uses_labels: bool = False
    """Image-level labels of the target take part in the training."""
    classifies_tiles: bool = False
    """The method predicts the classes of a labelled tile, so a crop must hold a whole tile."""
    estimates_statistics: bool = False
    """The method trains nothing and estimates batch norm's statistics, so it needs batch norm."""
    chooses: bool = False
    """The target's labels choose the segmenter, and the way in which images are shown to it."""
    changes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """The fields of the config, by section, that make the method what it is."""

    @property
    def in_rounds(self) -> bool:
        """The method trains one network in rounds (``labels_used/rounds.py``)."""
        return self.adapt == _ROUNDS

    @property
    def reads_masks(self) -> bool:
        """Masks of the target that ``config.rounds.masked_sections`` names take part."""
        return self.adapt in (_ROUNDS, _CHOICE)

    def changed(self, config: StyleFilterConfig) -> StyleFilterConfig:
        """Return ``config`` with the method's own values, whatever it said before."""
        return config.changed(self.changes)


@dataclass(frozen=True)
class Row:
    """A row of the table: a method, and the way in which its segmenter is tested."""

    title: str
    about: str
    """A sentence on what the row does, for someone who has not read its paper."""
    method: Method
    tested_on: StyliserName | Literal["chosen"] = "none"
    """The way in which the test images are stylised; ``chosen`` is the view that labels chose."""
    filtered: bool = False
    """The test images' own labels filter the prediction."""
    paper: bool = False
    """The paper has the row; it never ran the others."""


_ADABN = "models.baselines.adabn:adapt_statistics"
_PAUL = "models.baselines.weak_labels:adapt_weak_labels"
_CHOICE = "models.choice.search:choose"
_ROUNDS = "models.labels_used.rounds:adapt_in_rounds"
_SELF_TRAINING = "models.pseudo_labels:adapt_segmenter"
_YNET = "models.baselines.ynet:adapt_ynet"

_FILTER = {"adaptation": {"label_filter": True}}
_NO_FILTER = {"adaptation": {"label_filter": False}}
_NO_ADVERSARY = {"weak_labels": {"weight_class_alignment": 0.0, "weight_output_alignment": 0.0}}
# An estimate has one result: there is nothing to choose.
_ESTIMATE = {"adaptation": {"norm_statistics": "target", "select_on": "last"}}


def _rounds(name: str, **fields: object) -> Method:
    """Return self-training in rounds with these fields of ``config.rounds``."""
    changes: Mapping[str, Mapping[str, object]] = {**_FILTER, "rounds": fields}
    return Method(name, _ROUNDS, uses_labels=True, classifies_tiles=True, changes=changes)


# Several rows test these two, so each is trained once.
SOURCE_ONLY = Method("source-only")
STYLEFILTER = Method("stylefilter", _SELF_TRAINING, "cut", uses_labels=True, changes=_FILTER)

ROWS: dict[str, Row] = {
    "source-only": Row(
        "Source-only",
        "The segmenter learns from the source alone and segments target images as they are.",
        SOURCE_ONLY,
        paper=True,
    ),
    "cut": Row(
        "CUT",
        "The source-only segmenter segments test images that CUT redrew in the source's style.",
        SOURCE_ONLY,
        "cut",
        paper=True,
    ),
    "y-net": Row(
        "Y-Net",
        "The source-only segmenter trains further, and also learns to redraw target images.",
        Method("y-net", _YNET),
        paper=True,
    ),
    "paul": Row(
        "Paul et al.",
        "The source-only segmenter learns to tell which classes are in a labelled tile; "
        "adversaries, networks that tell source from target, make it treat both alike.",
        Method("paul", _PAUL, uses_labels=True, classifies_tiles=True),
        paper=True,
    ),
    "paul-no-advl": Row(
        "Paul et al. \\ AdvL",
        "The method of Paul et al. trains without the adversaries.",
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
        "The method of Paul et al. trains without the adversaries, on target images that CUT "
        "redrew.",
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
    "stylefilter-no-cut": Row(
        "StyleFilter \\ CUT",
        "StyleFilter's segmenter, tested on target images as they are.",
        STYLEFILTER,
        paper=True,
    ),
    "stylefilter": Row(
        "StyleFilter",
        "The segmenter learns from predictions for target images that CUT redrew; classes that the "
        "labels call absent are filtered out of these predictions.",
        STYLEFILTER,
        "cut",
        paper=True,
    ),
    "target-only": Row(
        "Target-only",
        "The segmenter learns from masks of the target.",
        Method("target-only", masks_of="target"),
        paper=True,
    ),
    "filter-without-style": Row(
        "Filter without style",
        "StyleFilter trains and is tested on target images as they are.",
        Method("filter-without-style", _SELF_TRAINING, uses_labels=True, changes=_FILTER),
    ),
    "unfiltered": Row(
        "StyleFilter \\ filter (Eq. 2)",
        "StyleFilter trains without the filter, so without any label: Equation 2 of the paper.",
        Method("unfiltered", _SELF_TRAINING, "cut", changes=_NO_FILTER),
        "cut",
    ),
    "filter-at-test": Row(
        "StyleFilter + filter at test",
        "The labels of the test images filter StyleFilter's predictions for them, too.",
        STYLEFILTER,
        "cut",
        filtered=True,
    ),
    "histogram": Row(
        "Histogram matching",
        "The source-only segmenter segments test images with the source's grey-value distribution.",
        SOURCE_ONLY,
        "histogram",
    ),
    "fourier": Row(
        "Fourier domain adaptation",
        "The source-only segmenter segments test images with the source's coarse brightness "
        "pattern.",
        SOURCE_ONLY,
        "fourier",
    ),
    "adabn": Row(
        "AdaBN",
        "The source-only segmenter takes the target's batch-norm statistics; nothing is trained.",
        Method("adabn", _ADABN, estimates_statistics=True, changes=_ESTIMATE),
    ),
    "adabn-cut": Row(
        "AdaBN + CUT",
        "AdaBN takes the statistics of target images that CUT redrew.",
        Method("adabn-cut", _ADABN, "cut", estimates_statistics=True, changes=_ESTIMATE),
        "cut",
    ),
    "stylefilter-histogram": Row(
        "StyleFilter, histogram for CUT",
        "StyleFilter trains with histogram matching in the place of CUT.",
        Method(
            "stylefilter-histogram", _SELF_TRAINING, "histogram", uses_labels=True, changes=_FILTER
        ),
        "histogram",
    ),
    "stylefilter-fourier": Row(
        "StyleFilter, Fourier for CUT",
        "StyleFilter trains with Fourier domain adaptation in the place of CUT.",
        Method("stylefilter-fourier", _SELF_TRAINING, "fourier", uses_labels=True, changes=_FILTER),
        "fourier",
    ),
    "rounds": Row(
        "Rounds",
        "The segmenter learns from predictions for target images as they are, which are made anew "
        "every few steps; labels remove classes from them, add classes, and are learnt themselves.",
        _rounds("rounds", statistics="source", area_power=0.0),
    ),
    "rounds-target": Row(
        "Rounds, target statistics",
        "Rounds takes the target's batch-norm statistics in the place of the source's.",
        _rounds("rounds-target", statistics="target", area_power=0.0),
    ),
    "rounds-area": Row(
        "Rounds + area",
        "Rounds brings a class half of the way to the area that it covers in the source where it "
        "is present.",
        _rounds("rounds-area", statistics="source", area_power=0.5),
    ),
    "rounds-mask": Row(
        "Rounds + one mask",
        "Rounds learns from the mask of one target section, too, in the place of its predictions "
        "there.",
        _rounds("rounds-mask", statistics="source", area_power=0.0, masked_sections=1),
    ),
    "chosen": Row(
        "Chosen by labels",
        "The labels choose among changes of the grey values, batch-norm statistics and rounds; the "
        "source-only segmenter stays unless another is better by more than chance.",
        Method(
            "chosen",
            _CHOICE,
            uses_labels=True,
            classifies_tiles=True,
            chooses=True,
            changes={"adaptation": {"label_filter": True, "select_on": "last"}},
        ),
        "chosen",
    ),
}
"""All rows in the table's order: first the paper's nine, then rows that it never ran."""

VALUED: tuple[str, ...] = ("rounds", "rounds-target", "rounds-area", "chosen")
"""The rows that are measured with more and with less annotation, if that is asked for."""

METHODS: dict[str, Method] = {row.method.name: row.method for row in ROWS.values()}

# Not Literal, which would name all rows a second time.
RowName = Annotated[
    str, GetPydanticSchema(lambda _type, _handler: core_schema.literal_schema(list(ROWS)))
]
"""A name in ``ROWS``; in a schema, an enumeration of them."""

MethodName = Annotated[
    str, GetPydanticSchema(lambda _type, _handler: core_schema.literal_schema(list(METHODS)))
]
"""A name in ``METHODS``."""


def rows_by_method(rows: Iterable[RowName]) -> dict[MethodName, tuple[RowName, ...]]:
    """Return the methods that ``rows`` test, in the table's order, each with its rows."""
    wanted, found = set(rows), dict[MethodName, tuple[RowName, ...]]()
    for name, row in ROWS.items():
        if name in wanted:
            found[row.method.name] = (*found.get(row.method.name, ()), name)
    return found


def needs_style(method: MethodName, rows: Iterable[RowName]) -> bool:
    """Tell whether a style model is needed to train the method, or to test it as ``rows`` do."""
    return "cut" in (METHODS[method].trained_on, *(ROWS[row].tested_on for row in rows))
