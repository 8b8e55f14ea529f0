"""Segmentations side by side, in the colours of their classes."""

import io
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.cli.synthetic import domain as synthetic
from app.inspection.figure import COLOURS
from tests.worker.report.reports import HOSTILE
from worker.report.figure import Panel, qualitative


def drawn(panels: list[Panel], names: list[str]) -> NDArray[np.uint8]:
    picture = Image.open(io.BytesIO(qualitative(panels, names)))
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGB"))


def count(picture: NDArray[np.uint8], colour: NDArray[np.uint8]) -> int:
    return int((picture == colour).all(axis=-1).sum())


def test_segmentations_are_drawn_in_the_colours_of_their_classes() -> None:
    section = synthetic.make_section("target", 3, 120)
    picture = drawn([Panel("Image", image=section.image), Panel("Truth", classes=section.mask)], [])
    areas = {n: (section.mask == n).sum() for n in np.unique(section.mask) if n != 255}
    assert len(areas) > 2
    shares = {n: count(picture, COLOURS[n]) / area for n, area in areas.items()}
    # A panel of 120 px is 360 px wide or a little less: each pixel is drawn as about nine.
    assert all(8 < share < 9.5 for share in shares.values())
    assert max(shares.values()) == pytest.approx(min(shares.values()), rel=0.05)


def test_the_same_panels_give_the_same_picture() -> None:
    section = synthetic.make_section("target", 3, 120)
    panels = [Panel(HOSTILE, image=section.image), Panel("Truth", classes=section.mask)]
    names = [*synthetic.CLASSES, HOSTILE, "_hidden", "日本"]
    assert qualitative(panels, names) == qualitative(panels, names)


def test_ignored_pixels_are_black_and_in_the_legend() -> None:
    mask = np.zeros((8, 8), np.uint8)
    black = np.zeros(3, np.uint8)
    assert count(drawn([Panel("Truth", classes=mask)], []), black) == 0
    ignored = mask.copy()
    ignored[:4] = 255
    picture = drawn([Panel("Truth", classes=ignored)], [])
    rows = np.flatnonzero((picture == black).all(axis=-1).sum(axis=1) > 20)
    # Two blocks of black lines: the ignored half of the panel, and the legend's square.
    assert sum(after - before > 1 for before, after in pairwise(rows)) == 1


def test_panels_wrap_and_need_one_picture_each() -> None:
    grey = np.zeros((4, 8), np.uint8)
    one, seven = (
        drawn([Panel(f"number {n} " * 9, image=grey) for n in range(number)], []).shape
        for number in (1, 7)
    )
    assert seven[:2] == (2 * one[0], 4 * one[1])
    with pytest.raises(ValueError, match="image or classes"):
        Panel("nothing")
