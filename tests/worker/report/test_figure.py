"""Segmentations side by side."""

import io

import numpy as np
import pytest
from PIL import Image

from app.cli import synthetic
from app.figure import COLOURS
from tests.worker.report.reports import HOSTILE
from worker.report.figure import Panel, qualitative


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
