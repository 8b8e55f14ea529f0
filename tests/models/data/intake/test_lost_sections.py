"""Blank and repeated sections of a volume."""

import numpy as np
import pytest

from models.data.intake.lost_sections import LostSections
from models.data.readers.limits import ImageError
from tests.app.files import grey


def looked(images: list[np.ndarray]) -> LostSections:
    lost = LostSections()
    for index, image in enumerate(images):
        lost.look(index, image, image.tobytes().hex())
    return lost


BLANK = np.zeros((4, 5), np.uint8)


def test_blank_sections_and_repeats_of_the_one_before_are_lost() -> None:
    a, b, c = (grey(n, 4, 5) for n in range(3))
    lost = looked([a, BLANK, a, b, b, b, BLANK, c])
    assert lost.blank == {1, 6}
    assert lost.unusable == {1, 2, 4, 5, 6}
    assert lost.other_copies() == {}


def test_a_copy_elsewhere_is_no_lost_section() -> None:
    a, b = grey(1, 4, 5), grey(2, 4, 5)
    lost = looked([a, b, a, b[:2], b.reshape(5, 4)])
    assert lost.unusable == set()
    assert lost.other_copies() == {2: 0}


def test_if_all_are_blank_none_was_lost() -> None:
    assert looked([BLANK, BLANK + 1]).unusable == set()


def test_a_volume_of_a_thousand_lost_sections_and_few_others_is_refused() -> None:
    shown = [grey(n, 4, 5) for n in range(1001)]
    assert len(looked([*shown, *[BLANK] * 1001]).unusable) == 1001
    with pytest.raises(ImageError, match="1001 sections"):
        looked([BLANK] * 1001)
