"""How many networks a choice trains, and how much of the target it copies."""

from typing import Any

import pytest

from models.capacity.choosing import num_copies, num_trained
from models.config.presets import preset


@pytest.mark.parametrize(
    ("choice", "trained"),
    [
        ({}, 3),
        ({"max_trained": 1, "retrain": True}, 2),
        ({"max_trained": 0, "retrain": True}, 0),
        ({"max_trained": 2, "ensemble": 3, "style_from_loss": 0.0}, 3),
        ({"max_trained": 0, "style_from_loss": 0.3}, 1),
    ],
)
def test_a_student_and_a_last_training_count(choice: dict[str, Any], trained: int) -> None:
    assert num_trained(preset("quick").changed({"choice": choice})) == trained


def test_lessons_take_two_bytes_for_each_class() -> None:
    plain = preset("quick").changed({"choice": {"views": [], "pixel_factors": []}})
    student = plain.changed({"choice": {"ensemble": 2}})
    assert num_copies(plain, 3) == 1
    assert num_copies(student, 3) == 1 + 3 * 2 / 4
    finer = student.changed({"choice": {"pixel_factors": [0.5]}})
    # Both of the best views four times as large, and the lessons too.
    assert num_copies(finer, 3) == 1 + 2 * 4 + 4 * 3 * 2 / 4
