"""GET /datasets/ID/report, its page and its contact sheet."""

from html.parser import HTMLParser
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest

from tests.app.files import mask, pixels, png, problem, registered, upload


def _discs(seed: int, count: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Dark discs on a bright ground, and their masks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:160, :160]
    images, masks = [], []
    for _ in range(count):
        inside = np.zeros((160, 160), np.uint8)
        for cy, cx in rng.integers(30, 130, (6, 2)):
            inside[(y - cy) ** 2 + (x - cx) ** 2 < 100] = 1
        noisy = 180 - 100.0 * inside + rng.normal(0, 5, inside.shape)
        images.append(noisy.clip(0, 255).astype(np.uint8))
        masks.append(inside)
    return images, masks


def _send(
    api: httpx.Client, images: list[np.ndarray], masks: list[np.ndarray], **metadata: Any
) -> str:
    named = [{f"s{n}.png": png(a) for n, a in enumerate(each)} for each in (images, masks)]
    found: str = registered(upload(api, *named, **metadata))["id"]
    return found


def _report(api: httpx.Client, dataset: str) -> dict[str, Any]:
    response = api.get(f"/datasets/{dataset}/report")
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def test_counts_are_those_of_the_dataset(api: httpx.Client) -> None:
    images, masks = _discs(1)
    masks[3][:] = 0
    report = _report(api, _send(api, images, masks))
    inside = sum(int(each.sum()) for each in masks)
    everything = 6 * 160 * 160
    background, organelle = report["classes"]
    assert (background["pixels"], organelle["pixels"]) == (everything - inside, inside)
    assert organelle["share"] == pytest.approx(inside / everything)
    assert (background["images_without"], organelle["images_without"]) == (0, 1)
    assert report["sizes"] == [{"height": 160, "width": 160, "sections": 6}]
    assert report["splits"] == {"train": 2, "unused": 2, "val": 1, "test": 1}
    assert sum(bar["pixels"] for bar in report["histogram"]) == everything
    assert (report["touching_splits"], report["remarks"]) == ([], [])


def test_suspicious_things_are_named(api: httpx.Client) -> None:
    images, masks = _discs(2)
    shifted = [np.roll(each, (6, -4), (0, 1)) for each in masks]
    (remark,) = _report(api, _send(api, images, shifted))["remarks"]
    assert remark["code"] == "mask_shifted"
    assert "-6 pixels down and 4" in remark["message"]
    images[1] = 255 - images[1]
    (remark,) = _report(api, _send(api, images, masks))["remarks"]
    assert (remark["where"], remark["code"]) == ("s1", "contrast_inverted")
    deep = [each.astype(np.uint16) * (1 if n == 1 else 16) for n, each in enumerate(_discs(2)[0])]
    codes = [remark["code"] for remark in _report(api, _send(api, deep, masks))["remarks"]]
    assert codes == ["mixed_depth"]


def test_neighbours_in_two_splits_are_named(api: httpx.Client) -> None:
    splits = {"train": ["s0", "s1"], "test": ["s2", "s4"]}
    report = _report(api, _send(api, *_discs(1), splits=splits))
    assert report["touching_splits"] == [["s1", "s2"]]


def test_the_contact_sheet_stretches_contrast_and_draws_classes(api: httpx.Client) -> None:
    images, masks = _discs(1)
    dim = [each.astype(np.uint16) for each in images]  # black in an ordinary viewer
    dataset = _send(api, dim, masks)
    response = api.get(f"/datasets/{dataset}/contact-sheet.png")
    assert response.headers["content-type"] == "image/png"
    drawn = pixels(response.content)[..., :3].astype(int)
    assert drawn[30:250, 10:230].mean() > 100
    colours = {tuple(colour) for colour in drawn.reshape(-1, 3)}
    assert {(86, 180, 233), (213, 94, 0)} <= colours  # the legend


class _Page(HTMLParser):
    """The names of a page's elements, its text, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_names_as_text_and_loads_only_the_contact_sheet(api: httpx.Client) -> None:
    dataset = _send(api, *_discs(1), name="<script>alert(1)</script>")
    response = api.get(f"/datasets/{dataset}/report.html")
    assert response.headers["content-type"].startswith("text/html")
    page = _Page(response.text)
    assert "script" not in page.tags
    assert page.loads == ["contact-sheet.png"]
    assert "<script>alert(1)</script>" in page.text
    assert "organelle" in page.text


def test_a_dataset_without_masks_or_of_tiny_sections_has_a_report(api: httpx.Client) -> None:
    tiny = registered(upload(api, {"a.png": png(mask(8, 8))}))["id"]
    report = _report(api, tiny)
    assert sum(bar["pixels"] for bar in report["histogram"]) == 64
    assert report["remarks"] == []
    assert api.get(f"/datasets/{tiny}/report.html").status_code == 200
    assert api.get(f"/datasets/{tiny}/contact-sheet.png").status_code == 200
    problem(api.get(f"/datasets/{uuid4()}/report"), 404)
