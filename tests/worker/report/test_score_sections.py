"""The table, its folds, differences and failures."""

import re

from models.table1.results import FailedRow
from tests.worker.report.reports import Page, cells, full, made, row, spread
from worker.report import html, markdown


def test_table_ranks_all_but_the_upper_bound_and_shows_its_numbers() -> None:
    text = markdown.render(full())
    shown = {title: cells(text, title) for title in ("Source-only", "CUT", "StyleFilter")}
    assert shown == {
        "Source-only": ["30.0 ± 10.0", "**50.0 ± 0.0**", "30.0 ± 10.0"],
        "CUT": ["<u>40.0 ± 10.0</u>", "<u>20.0 ± 10.0</u>", "<u>40.0 ± 10.0</u>"],
        "StyleFilter": ["**60.0 ± 10.0**", "**50.0 ± 0.0**", "**60.0 ± 10.0**"],
    }
    assert cells(text, "Target-only") == ["90.0 ± 0.0", "80.0 ± 10.0", "90.0 ± 0.0"]
    assert "Not ranked: Target-only" in text


def test_a_class_without_masks_is_missing_and_one_left_out_has_no_column() -> None:
    report = made(
        row("source-only", mito=(0.4, 0.6), nucleus=(None, None), vesicle=(None, 0.2)),
        row("cut", mito=(0.5, 0.5), nucleus=(None, None), vesicle=(None, 0.1)),
        class_names=("mito", "nucleus", "lyso", "vesicle"),
        excluded=("lyso",),
    )
    text = markdown.render(report)
    assert "| Row | mito | nucleus | vesicle | mean |" in text
    # Both have 50.0 for mito: nothing to rank.
    assert cells(text, "Source-only")[:3] == ["50.0 ± 10.0", "–", "**20.0 ± 0.0**"]
    assert cells(text, "CUT")[:3] == ["50.0 ± 0.0", "–", "<u>10.0 ± 0.0</u>"]
    for part in (": lyso.", " nucleus, ", r"vesicle .* 1 of 2 folds"):
        assert re.search(part, text)
    assert "Target-only" not in text


def test_classes_without_any_score_have_no_chart() -> None:
    text = markdown.render(made(row("cut", mito=(None, None), nucleus=(None, None))))
    assert "charts/classes.svg" not in text
    assert "mito and nucleus" in text


def test_seeds_have_columns_and_a_table_of_their_own() -> None:
    scores = spread((0.2, 0.4, 0.6, 0.6)).model_copy(update={"seed_std": 0.1, "seed_range": 0.2})
    several = row("source-only", mito=(0.2, 0.4, 0.6, 0.6)).model_copy(
        update={"folds": (0, 0, 1, 1), "seeds": (0, 3, 0, 3), "dice": {"mean": scores}}
    )
    report = made(several, row("cut", mito=(0.1,)), seeds=(0, 3), folds=2)
    text = markdown.render(report)
    assert "| Row | seed 0 | seed 3 | Between seeds | Largest |" in text
    lines = [line for line in text.splitlines() if line.startswith("| Source-only |")]
    assert "| Source-only | 20.0 | 40.0 | 60.0 | 60.0 |" in lines  # fold by fold
    assert "| Source-only | 40.0 | 50.0 | 10.0 | 20.0 |" in lines  # seed by seed
    assert "1 of 4 trainings" in text
    assert "0 and 3" in text
    Page(html.render(report))


def test_one_fold_and_one_row() -> None:
    report = made(row("stylefilter", mito=(0.25,)), folds=1)
    text = markdown.render(report)
    assert cells(text, "StyleFilter")[:1] == ["25.0 ± 0.0"]
    assert "over one fold" in text
    assert "fold by fold" not in text
    assert "is bold" not in text
    Page(html.render(report))


def test_a_row_that_lacks_a_fold_is_not_ranked() -> None:
    text = markdown.render(
        made(
            row("source-only", mito=(0.1, 0.1)),
            row("cut", mito=(0.2, 0.2)),
            row("stylefilter", mito=(0.9,)),
        )
    )
    assert "| StyleFilter (1 of 2 folds) | 90.0 ± 0.0 |" in text
    assert cells(text, "CUT")[0] == "**20.0 ± 0.0**"
    assert re.search(r"missing: StyleFilter\.", text)


def test_a_report_without_rows_says_what_failed() -> None:
    report = made(failed=(FailedRow(row="cut", fold=0, reason="a | b\nno room"),))
    text = markdown.render(report)
    assert r"| CUT | 1 | – | a \| b no room |" in text
    assert "1 missing result" in text
    page = Page(html.render(report))
    assert not any("image/svg" in address for address in page.addresses)
    assert "1 result is missing" in " ".join(page.texts)
