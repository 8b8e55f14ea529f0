"""A benchmark's report: what each cell says, and that names stay names."""

import io
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from app.cli import synthetic
from app.figure import COLOURS
from models.config import preset
from models.table1.results import (
    TITLES,
    BenchmarkReport,
    Curve,
    Difference,
    FailedRow,
    LabelValue,
    RowName,
    RowSummary,
    SharedStage,
    Spread,
    StyleChoice,
    StyleScore,
)
from worker import report as reports
from worker.report import html, markdown
from worker.report.charts import draw, write_charts
from worker.report.figure import Panel, qualitative
from worker.report.numbers import count, duration, listed, points
from worker.report.sections import headline, sections

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
        title=TITLES[name],
        tile_px=tile_px,
        folds=folds,
        dice={"mean": spread(next(iter(dice.values())))} | {n: spread(v) for n, v in dice.items()},
        selected=("source_val" if name in ("source-only", "cut") else "target_val",) * len(folds),
        steps=tuple(100 * (fold + 1) for fold in folds),
        styles_selected=("labels" if name in ("cut", "stylefilter") else None,) * len(folds),
        num_labels=labels,
        num_masks=12.5 if name == "target-only" else 0,
        seconds=4000,
        own_seconds=400,
        peak_memory_bytes=1_500_000_000,
        words=f"What {TITLES[name]} does.",
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
    scores = ((250, 0.7, 1.5), (500, 0.8, 1.4), (750, 0.6, 1.6))
    styles = (
        StyleChoice(
            fold=0,
            selected_by="target_val",
            scores=tuple(
                StyleScore(step=step, dice=dice, label_agreement=0.9, label_score=both)
                for step, dice, both in scores
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


def test_table_ranks_all_but_the_upper_bound_and_shows_its_numbers() -> None:
    text = markdown.render(full())
    shown = {title: cells(text, title) for title in ("Source-only", "CUT", "StyleFilter")}
    assert shown == {
        "Source-only": ["30.0 ± 10.0", "**50.0 ± 0.0**", "30.0 ± 10.0"],
        "CUT": ["<u>40.0 ± 10.0</u>", "<u>20.0 ± 10.0</u>", "<u>40.0 ± 10.0</u>"],
        "StyleFilter": ["**60.0 ± 10.0**", "**50.0 ± 0.0**", "**60.0 ± 10.0**"],
    }
    assert cells(text, "Target-only") == ["90.0 ± 0.0", "80.0 ± 10.0", "90.0 ± 0.0"]
    assert "Not ranked: Target-only, the upper bound; missing values." in text


def test_who_knows_the_test_images_labels_is_not_ranked() -> None:
    text = markdown.render(
        made(
            row("source-only", mito=(0.1, 0.1)),
            row("stylefilter", mito=(0.2, 0.2)),
            row("filter-at-test", mito=(0.9, 0.9)),
        )
    )
    assert cells(text, "StyleFilter")[0] == "**20.0 ± 0.0**"
    assert cells(text, "StyleFilter + filter at test")[0] == "90.0 ± 0.0"
    assert "filter at test, which knows the test images' own labels; missing values." in text


def test_scores_that_look_equal_share_their_mark() -> None:
    text = markdown.render(
        made(
            row("source-only", mito=(0.40001, 0.40001)),
            row("cut", mito=(0.39999, 0.39999)),
            row("stylefilter", mito=(0.2, 0.2)),
            row("unfiltered", mito=(0.2, 0.2)),
            row("y-net", mito=(0.1, 0.1)),
        )
    )
    assert cells(text, "Source-only")[0] == cells(text, "CUT")[0] == "**40.0 ± 0.0**"
    assert cells(text, "StyleFilter")[0] == "<u>20.0 ± 0.0</u>"
    assert cells(text, r"StyleFilter \\ filter (Eq. 2)")[0] == "<u>20.0 ± 0.0</u>"
    assert cells(text, "Y-Net")[0] == "10.0 ± 0.0"


def test_a_class_without_masks_is_missing_and_one_left_out_has_no_column() -> None:
    report = made(
        row("source-only", mito=(0.4, 0.6), nucleus=(None, None), vesicle=(None, 0.2)),
        row("cut", mito=(0.5, 0.5), nucleus=(None, None), vesicle=(None, 0.1)),
        class_names=("mito", "nucleus", "lyso", "vesicle"),
        excluded=("lyso",),
    )
    text = markdown.render(report)
    assert "| Method | mito | nucleus | vesicle | mean |" in text
    # Both have 50.0 for mito: nothing to rank.
    assert cells(text, "Source-only")[:3] == ["50.0 ± 10.0", "–", "**20.0 ± 0.0**"]
    assert cells(text, "CUT")[:3] == ["50.0 ± 0.0", "–", "<u>10.0 ± 0.0</u>"]
    assert "Left out of the table and its means: lyso." in text
    assert "In no test mask, so without a score: nucleus." in text
    assert "vesicle: in the test masks of 1 of 2 folds." in text
    assert "Target-only" not in text


def test_one_split_and_one_row() -> None:
    report = made(row("stylefilter", mito=(0.25,)), folds=1)
    text = markdown.render(report)
    assert cells(text, "StyleFilter")[:1] == ["25.0 ± 0.0"]
    assert "over one fold" in text
    assert "One fold: the standard deviations are 0.0 by definition" in text
    assert "of each fold" not in text
    assert "the best is bold" not in text
    assert headline(report) == "StyleFilter reaches 25.0% mean DICE."
    # Who knows the test images' labels does not win.
    known = made(row("filter-at-test", mito=(0.9,)), row("cut", mito=(0.3,)), folds=1)
    assert headline(known) == "CUT reaches 30.0% mean DICE."
    Page(html.render(report))


def test_a_row_that_lacks_a_split_is_not_ranked() -> None:
    text = markdown.render(
        made(
            row("source-only", mito=(0.1, 0.1)),
            row("cut", mito=(0.2, 0.2)),
            row("stylefilter", mito=(0.9,)),
        )
    )
    assert "| StyleFilter (1 of 2 folds) | 90.0 ± 0.0 |" in text
    assert cells(text, "CUT")[0] == "**20.0 ± 0.0**"
    assert "lack folds that other rows have: StyleFilter." in text


def test_means_over_other_splits_are_not_compared() -> None:
    report = made(
        row("source-only", mito=(0.1, 0.1)),
        row("cut", mito=(0.8, 0.2)),
        row("stylefilter", mito=(0.9,)),
        row("target-only", mito=(0.95, 0.5)),
    )
    assert headline(report) == "StyleFilter reaches 90.0% mean DICE on one fold of 2."
    text = markdown.render(report)
    assert "| StyleFilter | 40 | 0 | 90.0 | – |" in text
    assert "| CUT | 0 | 0 | 50.0 | +40.0 |" in text


def test_a_report_without_rows_says_what_failed() -> None:
    report = made(failed=(FailedRow(row="cut", fold=0, reason="a | b\nno room"),))
    text = markdown.render(report)
    assert r"| CUT | 1 | – | a \| b no room |" in text
    assert "1 missing result, and why" in text
    assert headline(report) is None
    page = Page(html.render(report))
    assert "svg" not in page.tags
    assert "1 missing result." in " ".join(page.texts)


def test_every_part_is_told() -> None:
    text = markdown.render(full())
    assert "| CUT | −1.2 (−5.0 to +3.0) | – |" in text
    assert "| StyleFilter | – | **+20.0 (+5.0 to +30.0)** |" in text
    assert "| 128 px | 1,634 | 60.0 ± 10.0 | 55.0 ± 5.0 | +5.0 (+1.0 to +8.0) | 327 |" in text
    assert "| StyleFilter | 40 | 0 | 60.0 | +30.0 |" in text
    assert "| Target-only | 0 | 12.5 | 90.0 | +60.0 |" in text
    assert "| StyleFilter | 1 h 6 min | 6 min 40 s | 1.50 GB |" in text
    assert "All jobs together, each stage once: 2 h 1 min." in text
    assert "| pretrain | 1 and 2 | 2 min | CUT and Paul et al. |" in text
    target = "DICE on the target's validation masks"
    labels = "agreement with the image-level labels and confidence"
    assert f"| StyleFilter | {target} | 100 and 200 | {labels} |" in text
    assert f"| Target-only | {target} | 100 and 200 | – |" in text
    assert "Choosing by the target's validation masks is the paper's protocol" in text
    assert "- **Note**: fold 1, paul: half the crop" in text
    assert "| Paul et al. | 2 | 64 px | out of memory |" in text
    assert "- **StyleFilter**: What StyleFilter does." in text
    assert "- **torch**: 2.13.0" in text
    assert "| 1 | 80.0 (step 500) | 60.0 (step 750) | 60.0 (step 750) |" in text
    assert "chosen by DICE on the target's validation masks." in text
    assert headline(full()) == (
        "StyleFilter reaches 60.0% mean DICE: +30.0 points against Source-only and +20.0 points "
        "(95% interval +5.0 to +30.0) against CUT. It closes 50% of the gap to Target-only (90.0%)."
    )


def test_page_says_what_the_markdown_says() -> None:
    report = full()
    page = " ".join(" ".join(Page(html.render(report)).texts).split())
    for section in sections(report):
        assert section.title in page
        for grid in section.grids:
            assert grid.caption in page
            texts = (cell.text for line in grid.rows for cell in line)
            assert all(text in page for text in texts)
        assert all(note in page for note in section.notes)
        assert all(term in page and words in page for term, words in section.items)


def test_page_is_whole_and_asks_for_nothing_from_elsewhere() -> None:
    text = html.render(full(), figure=b"a picture")
    page = Page(text)
    assert page.tags.count("svg") == 5
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    for address in page.addresses:
        assert address.startswith("data:image/png;base64,") or address.lstrip("#") in page.ids
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert page.tags.count("caption") == page.tags.count("table") == 10


def test_names_are_never_markup() -> None:
    report = full().model_copy(update={"source": HOSTILE, "versions": {HOSTILE: HOSTILE}})
    named = [
        one.model_copy(update={"title": HOSTILE, "dice": one.dice | {HOSTILE: one.dice["mito"]}})
        for one in report.rows
    ]
    report = report.model_copy(update={"class_names": ("mito", HOSTILE), "rows": tuple(named)})
    page = Page(html.render(report))
    assert "script" not in page.tags
    assert all(not address.startswith("http") for address in page.addresses)
    assert any(HOSTILE.replace("\x07", " ") in text.replace("\x07", " ") for text in page.texts)

    text = markdown.render(report)
    assert "<script>" not in text
    assert r"&lt;script&gt;alert('x')&lt;/script&gt;\|\`\$\\frac" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_charts_are_the_same_each_time_and_stand_alone(tmp_path: Path) -> None:
    paths = write_charts(full(), tmp_path)
    assert [path.stem for path in paths] == list(CHARTS)
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_charts(full(), tmp_path)] == first
    for path in paths:
        root = ElementTree.parse(path).getroot()
        assert root.get("role") == "img"
        assert root.find("{*}metadata") is None
        assert root[0].get("fill") == "#ffffff"
    drawn = "".join(ElementTree.fromstring(draw("classes", full())).itertext())
    assert "mito" in drawn
    assert "nucleus" in drawn


def test_files_are_written_all_at_once_and_only_over_a_report(tmp_path: Path) -> None:
    report = full()
    reports.write(report, tmp_path / "made", b"a picture")
    reports.write(report, tmp_path / "made")
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.is_file()}
    charts = {f"made/charts/{name}.svg" for name in CHARTS}
    assert names == charts | {"made/report.json", "made/report.md", "made/report.html"}
    stored = (tmp_path / "made" / "report.json").read_text()
    assert BenchmarkReport.model_validate_json(stored) == report
    assert "(figure.png)" not in (tmp_path / "made" / "report.md").read_text()

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="not a report"):
        reports.write(report, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "mine"]


def test_a_failed_write_leaves_the_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports.write(full(), tmp_path / "made")

    def broken(*_: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(html, "render", broken)
    with pytest.raises(OSError, match="disk full"):
        reports.write(made(), tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    stored = (tmp_path / "made" / "report.json").read_text()
    assert BenchmarkReport.model_validate_json(stored) == full()


def test_segmentations_are_drawn_in_the_colours_of_their_classes() -> None:
    section = synthetic.make_section("target", 3, 120)
    panels = [Panel("Image", image=section.image), Panel("Truth", classes=section.mask)]
    names = [*synthetic.CLASSES, HOSTILE]
    picture = Image.open(io.BytesIO(qualitative(panels, names)))
    assert picture.width == 12 + 2 * (360 + 12)
    truth = np.asarray(picture)[12 : 12 + 360, 384 : 384 + 360][1::3, 1::3]  # 3 x 3 for each
    expected = COLOURS[section.mask % len(COLOURS)]
    expected[section.mask == 255] = 0
    assert (truth == expected).all()
    assert qualitative(panels, names) == qualitative(panels, names)


def test_panels_wrap_and_need_one_picture_each() -> None:
    grey = np.zeros((4, 8), np.uint8)
    seven = [Panel(f"number {index} " * 9, image=grey) for index in range(7)]
    picture = Image.open(io.BytesIO(qualitative(seven, [])))
    assert picture.size == (12 + 4 * (360 + 12), 12 + 2 * (180 + 40 + 12))
    with pytest.raises(ValueError, match="either an image or classes"):
        Panel("nothing")


def test_numbers() -> None:
    assert [duration(s) for s in (0, 9.94, 45, 60, 725, 3600, 12000, 187200)] == [
        "0.0 s", "9.9 s", "45 s", "1 min", "12 min 5 s", "1 h", "3 h 20 min", "2 d 4 h",
    ]  # fmt: skip
    assert [count(n) for n in (0, 12, 12.5, 1634, 4357.3)] == ["0", "12", "12.5", "1,634", "4,357"]
    assert [points(d) for d in (0.067, -0.012, 0.0)] == ["+6.7", "−1.2", "+0.0"]
    assert [listed(n) for n in ((), ("a",), ("a", "b"), ("a", "b", "c"))] == [
        "", "a", "a and b", "a, b and c",
    ]  # fmt: skip
