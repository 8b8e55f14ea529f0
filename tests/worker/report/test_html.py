"""The report as a page: whole, closed to the outside, and names stay names."""

import re

from tests.worker.report.reports import HOSTILE, Page, full, hostile
from worker.report import html
from worker.report.sections import sections


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
    assert len([one for one in page.addresses if one.startswith("data:image/svg+xml;")]) == 5
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    for address in page.addresses:
        assert address.startswith("data:image/") or address.lstrip("#") in page.ids
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert page.tags.count("caption") == page.tags.count("table") == 10


def test_names_are_never_markup() -> None:
    page = Page(html.render(hostile()))
    assert "script" not in page.tags
    assert all(not address.startswith("http") for address in page.addresses)
    assert any(HOSTILE.replace("\x07", " ") in text.replace("\x07", " ") for text in page.texts)
