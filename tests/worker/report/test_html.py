"""The page: the same words as the Markdown, whole, and names stay names."""

import re

from tests.worker.report.reports import HOSTILE, Page, full
from worker.report import html, markdown
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
