"""What each section says: rows, classes, repetitions, headline."""

from models.table1.results import (
    FailedRow,
)
from tests.worker.report.reports import Page, cells, full, made, row
from worker.report import html, markdown
from worker.report.sections import headline


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
