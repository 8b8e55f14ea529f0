"""Which numbers of a column are bold or underlined."""

from tests.worker.report.reports import cells, made, row
from worker.report import markdown
from worker.report.ranking import marks


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
    assert "Not ranked: StyleFilter + filter at test" in text


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


def test_zero_is_no_second_best() -> None:
    rows = (
        row("source-only", mito=(0.0, 0.0), nucleus=(0.0, 0.0)),
        row("cut", mito=(0.1, 0.1), nucleus=(0.0, 0.0)),
        row("stylefilter", mito=(0.0004, 0.0), nucleus=(0.0, 0.0)),
    )
    assert marks(rows, "mito") == [None, "best", None]
    assert marks(rows, "nucleus") == [None, None, None]
