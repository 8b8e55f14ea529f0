"""Reports to test with, and how to read what is made of them."""

from collections.abc import Sequence
from html.parser import HTMLParser

import numpy as np

from models.config.presets import preset
from models.table1.methods import ROWS, RowName
from models.table1.results import (
    BenchmarkReport,
    Curve,
    Difference,
    FailedRow,
    LabelValue,
    RowSummary,
    SharedStage,
    Spread,
    StyleChoice,
    StyleScore,
)

HOSTILE = "<script>alert('x')</script>|`$\\frac\x07 \"&[a](http://b)"
VOID = {"meta", "img", "link", "br", "hr", "input"}
CHARTS = "mean", "classes", "curves", "styles", "time"
Scores = Sequence[float | None]


def spread(values: Scores) -> Spread:
    known = [value for value in values if value is not None]
    if not known:
        return Spread(per_fold=tuple(values), mean=None, std=None)
    mean, std = float(np.mean(known)), float(np.std(known))
    return Spread(per_fold=tuple(values), mean=mean, std=std)


def row(name: RowName, tile_px: int | None = None, **dice: Scores) -> RowSummary:
    """With the scores of each class; their mean is that of the first class unless given."""
    folds = tuple(range(len(next(iter(dice.values())))))
    labels = 0.0 if name in ("source-only", "cut", "target-only") else 40.0
    return RowSummary(
        row=name,
        title=ROWS[name].title,
        tile_px=tile_px,
        folds=folds,
        seeds=(0,) * len(folds),
        dice={"mean": spread(next(iter(dice.values())))} | {n: spread(v) for n, v in dice.items()},
        selected=("source_val" if name in ("source-only", "cut") else "target_val",) * len(folds),
        steps=tuple(100 * (fold + 1) for fold in folds),
        styles_selected=("labels" if name in ("cut", "stylefilter") else None,) * len(folds),
        num_labels=labels,
        num_masks=12.5 if name == "target-only" else 0,
        seconds=4000,
        own_seconds=400,
        peak_memory_bytes=1_500_000_000,
    )


def made(*rows: RowSummary, **changes: object) -> BenchmarkReport:
    report = BenchmarkReport(
        source="here",
        target="there",
        class_names=("mito", "nucleus"),
        excluded=(),
        preset="smoke",
        config=preset("smoke"),
        folds=2,
        results=(),
        rows=rows,
        differences=(),
        label_values=(),
        curves=(),
        styles=(),
        shared=(),
        failed=(),
        seconds=7300,
        versions={"torch": "2.13.0"},
    )
    return report.model_copy(update=changes)


def full() -> BenchmarkReport:
    """Every section has something to say."""
    rows = (
        row("source-only", mito=(0.2, 0.4), nucleus=(0.5, 0.5)),
        row("cut", mito=(0.3, 0.5), nucleus=(0.1, 0.3)),
        row("stylefilter", mito=(0.5, 0.7), nucleus=(0.5, 0.5)),
        row("target-only", mito=(0.9, 0.9), nucleus=(0.9, 0.7)),
    )
    difference = Difference(
        row="stylefilter", than="cut", mean=0.2, low=0.05, high=0.3, standard_error=0.06
    )
    uncertain = Difference(
        row="cut", than="source-only", mean=-0.012, low=-0.05, high=0.03, standard_error=0.02
    )
    value = LabelValue(
        tile_px=128,
        num_labels=1634,
        with_filter=spread((0.5, 0.7)),
        without_filter=spread((0.5, 0.6)),
        low=0.01,
        high=0.08,
        labels_per_point=326.8,
    )
    curves = tuple(
        Curve(
            row=name,
            fold=fold,
            stage="adapt",
            name="dice/mean",
            steps=(0, 50, 100),
            values=(0.1, 0.3, 0.4 + fold / 10),
        )
        for name in ("stylefilter", "cut")
        for fold in (0, 1)
    )
    scores = ((250, 0.7, 0.75), (500, 0.8, 0.7), (750, 0.6, 0.8))
    styles = (
        StyleChoice(
            fold=0,
            selected_by="target_val",
            scores=tuple(
                StyleScore(step=step, dice=dice, label_agreement=0.9, label_probability=told)
                for step, dice, told in scores
            ),
        ),
    )
    shared = tuple(
        SharedStage(stage="pretrain", fold=fold, seconds=90 + 60 * fold, rows=("cut", "paul"))
        for fold in (0, 1)
    )
    return made(
        *rows,
        differences=(difference, uncertain),
        label_values=(value,),
        curves=curves,
        shared=shared,
        styles=styles,
        failed=(FailedRow(row="paul", fold=1, tile_px=64, reason="out of memory"),),
        notes=("fold 1, paul: half the crop",),
    )


def hostile() -> BenchmarkReport:
    """Every name that a user chose is full of markup."""
    report = full().model_copy(update={"source": HOSTILE, "versions": {HOSTILE: HOSTILE}})
    named = [
        one.model_copy(update={"title": HOSTILE, "dice": one.dice | {HOSTILE: one.dice["mito"]}})
        for one in report.rows
    ]
    return report.model_copy(update={"class_names": ("mito", HOSTILE), "rows": tuple(named)})


def cells(text: str, title: str) -> list[str]:
    """Of the first line of a Markdown table that begins with ``title``."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {title} "))
    return [cell.strip() for cell in line.strip("|").split(" | ")][1:]


class Page(HTMLParser):
    """What a page holds; fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)
