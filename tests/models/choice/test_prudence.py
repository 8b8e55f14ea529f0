"""Among candidates that labels cannot tell apart the one with the fewest changes comes first."""

from models.choice.label_scores import Evidence
from models.choice.prudence import prudent_first
from tests.models.choice.predictions import evidence
from tests.models.domains import A, P

LABELS = [P, A] * 50


def missing(*tiles: int) -> Evidence:
    """Evidence of a prediction that is sure of all tiles, and wrong about some."""
    peaks = [0.9 if label == P else 0.1 for label in LABELS]
    return evidence(LABELS, [1 - p if n in tiles else p for n, p in enumerate(peaks)])


BASE = missing(*range(50))


def test_a_difference_that_is_not_told_is_left_to_the_fewest_changes() -> None:
    found = {
        "lowest": missing(0, 1, 2),
        "close": missing(10, 11, 12, 14),
        "closest, most changed": missing(20, 21, 22),
        "worse": missing(*range(30, 60)),
    }
    changes = {"lowest": 2, "close": 1, "closest, most changed": 3, "worse": 0}
    order = prudent_first(found, BASE, changes.__getitem__)
    assert order == ["close", "lowest", "closest, most changed", "worse"]


def test_of_equal_changes_the_lower_loss_comes_first() -> None:
    found = {"four": missing(10, 11, 12, 14), "three": missing(0, 1, 2)}
    assert prudent_first(found, BASE, lambda _: 0) == ["three", "four"]


def test_what_is_told_apart_keeps_its_order_whatever_it_changes() -> None:
    # The same tiles are wrong, and more of them: a paired difference has a small error.
    found = {"few": missing(*range(10)), "many": missing(*range(20)), "most": missing(*range(40))}
    changes = {"few": 3.0, "many": 2.0, "most": 1.0}
    assert prudent_first(found, BASE, changes.__getitem__) == ["few", "many", "most"]


def test_what_is_not_told_from_source_only_comes_by_its_loss() -> None:
    base = missing(10, 11, 12, 14, 15)
    found = {"base": base, "lowest": missing(0, 1, 2), "a little better": missing(10, 11, 12)}
    changes = {"base": 0.0, "lowest": 1.0, "a little better": 2.0}
    order = prudent_first(found, base, changes.__getitem__)
    assert order == ["lowest", "a little better", "base"]


def test_without_labels_the_order_stays() -> None:
    none = evidence([], [])
    found = {"b": none, "a": none}
    assert prudent_first(found, none, {"a": 0.5, "b": 1.0}.__getitem__) == ["b", "a"]
