"""Points for a minute of annotation: numbers that can be worked out by hand."""

import pytest

from models.table1.annotation import annotation_values
from models.table1.plan import Budget
from tests.models.table1.test_statistics import HALF, NAMES, PERFECT, SURER, result


def test_each_annotation_is_compared_with_none() -> None:
    few, mask = Budget(num_labels=20), Budget(num_labels=0, num_masks=1)
    results = [
        result("source-only", 0, [HALF] * 3),
        result("source-only", 0, [HALF] * 3, seed=1),
        result("rounds", 0, [PERFECT] * 3, num_labels=100),
        result("rounds", 0, [PERFECT] * 3, num_masks=1, budget=mask),
        result("rounds", 0, [SURER] * 3, num_labels=20, budget=few),
        result("rounds", 0, [SURER] * 3, num_labels=0, budget=Budget(num_labels=0)),
        result("rounds", 0, [HALF] * 3, tile_px=32, num_labels=400),
        result("rounds", 1, [HALF] * 3, tile_px=32, num_labels=800),  # no source-only there
        result("chosen", 0, [PERFECT] * 3),  # with one annotation there is no curve
        result("stylefilter", 0, [PERFECT] * 3, num_labels=100),
    ]
    found = annotation_values(results, NAMES, ())
    assert {value.row for value in found} == {"rounds"}
    assert [(v.num_labels, v.num_masks, v.minutes) for v in found] == [
        (0, 0, 0),
        (20, 0, 1),
        (100, 0, 5),
        (400, 0, 20),
        (0, 1, 30),
    ]
    # Mean DICE of HALF is 2/3, of SURER 4/5.
    assert [v.gain for v in found] == pytest.approx([2 / 15, 2 / 15, 1 / 3, 0, 1 / 3])
    assert found[0].points_per_minute is None
    assert [v.points_per_minute for v in found[1:]] == pytest.approx(
        [40 / 3, 100 / 15, 0, 100 / 90]
    )
    assert [(v.low, v.high) for v in found] == [
        (pytest.approx(v.gain), pytest.approx(v.gain)) for v in found
    ]
    assert found[2].dice.per_fold == (1,)
