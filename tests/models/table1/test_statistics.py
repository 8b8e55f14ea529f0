"""From results to the table: numbers that can be worked out by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from models.scores import dice_scores
from models.table1.results import Difference, RowResult, Spread
from models.table1.statistics import differences, label_values, tabulate

NAMES = ("a", "b", "c")
Matrix = Sequence[Sequence[int]]

PERFECT: Matrix = [[10, 0, 0], [0, 10, 0], [0, 0, 10]]
HALF: Matrix = [[5, 5, 0], [5, 5, 0], [0, 0, 10]]
"""DICE 1/2, 1/2, 1."""
WITHOUT_C: Matrix = [[10, 0, 0], [0, 5, 5], [0, 0, 0]]
"""DICE 1, 2/3, and no true pixel of c."""


def result(
    row: str = "source-only", fold: int = 0, confusions: Sequence[Matrix] = (PERFECT,), **changes
) -> RowResult:
    number = len(confusions)
    facts = {
        "row": row,
        "fold": fold,
        "sections": tuple(f"s{n}" for n in range(number)),
        "groups": ("g",) * number,
        "confusions": tuple(tuple(tuple(line) for line in matrix) for matrix in confusions),
        "selected_by": "last",
        "selected_step": 1,
        "num_labels": 0,
        "num_masks": 0,
        "peak_memory_bytes": 1000,
        "seconds": 60.0,
        "own_seconds": 30.0,
    }
    return RowResult(**facts | changes)


def test_a_class_is_scored_on_all_pixels_of_a_split_together() -> None:
    """One section has 10 of 10 pixels right, another 2 of 30: not the mean of two DICE."""
    first, second = [[10, 0, 0], [0, 0, 0], [0, 0, 0]], [[2, 28, 0], [0, 0, 0], [0, 0, 0]]
    row = tabulate([result(confusions=[first, second])], NAMES, ())[0]
    assert row.dice["a"].per_fold == (pytest.approx(2 * 12 / (40 + 12)),)
    assert row.dice["b"].per_fold == (None,)
    assert row.dice["mean"].mean == row.dice["a"].mean


def test_means_and_spreads_over_the_splits() -> None:
    results = [
        result("cut", 1, [HALF], seconds=120.0, peak_memory_bytes=9, selected_by="source_val"),
        result("cut", 0, [PERFECT], own_seconds=10.0, num_labels=3),
    ]
    row = tabulate(results, NAMES, ())[0]
    assert (row.row, row.title, row.folds) == ("cut", "CUT", (0, 1))
    assert row.dice["a"].per_fold == (1, 0.5)
    assert (row.dice["a"].mean, row.dice["a"].std) == (0.75, 0.25)
    assert (row.dice["c"].mean, row.dice["c"].std) == (1, 0)
    assert row.dice["mean"].per_fold == (1, pytest.approx(2 / 3))
    assert row.dice["mean"].mean == pytest.approx(5 / 6)
    assert row.dice["mean"].std == pytest.approx(1 / 6)
    assert row.selected == ("last", "source_val")
    assert (row.seconds, row.own_seconds, row.num_labels, row.num_masks) == (90, 20, 1.5, 0)
    assert row.peak_memory_bytes == 1000


def test_the_spread_between_seeds_leaves_out_that_between_folds() -> None:
    """DICE of a is 1 and 1/2 in fold 0, 1/2 and 1/2 in fold 1."""
    results = [
        result("cut", fold, [matrix], seed=seed)
        for fold, matrices in enumerate([(PERFECT, HALF), (HALF, HALF)])
        for seed, matrix in enumerate(matrices)
    ]
    row = tabulate(results, NAMES, ())[0]
    assert (row.folds, row.seeds) == ((0, 0, 1, 1), (0, 1, 0, 1))
    score = row.dice["a"]
    assert score.per_fold == (1, 0.5, 0.5, 0.5)
    # Squares: 2 x 1/16 in the first fold, none in the second; one degree of freedom in each.
    assert score.seed_std == pytest.approx((1 / 16) ** 0.5)
    assert score.seed_range == 0.5
    with pytest.raises(ValueError, match="'cut' with seed 1 .*twice"):
        tabulate([*results, results[1]], NAMES, ())


def test_one_seed_has_no_spread_between_seeds() -> None:
    score = tabulate([result(fold=0), result(fold=1, seed=3)], NAMES, ())[0].dice["mean"]
    assert (score.seed_std, score.seed_range) == (None, None)


def test_scores_are_those_of_every_other_place() -> None:
    matrix = np.random.default_rng(0).integers(100, size=(3, 3))
    row = tabulate([result(confusions=[matrix.tolist()])], NAMES, ())[0]
    assert [row.dice[name].mean for name in NAMES] == pytest.approx(dice_scores(matrix))


def test_a_class_that_a_splits_masks_lack() -> None:
    row = tabulate([result(fold=0, confusions=[WITHOUT_C]), result(fold=1)], NAMES, ())[0]
    assert row.dice["b"].per_fold == (pytest.approx(2 / 3), 1)
    assert row.dice["c"].per_fold == (None, 1)
    assert (row.dice["c"].mean, row.dice["c"].std) == (1, 0)
    assert row.dice["mean"].per_fold == (pytest.approx(5 / 6), 1)
    nowhere = tabulate([result(confusions=[WITHOUT_C])], NAMES, ())[0]
    assert nowhere.dice["c"] == Spread(per_fold=(None,), mean=None, std=None)


def test_an_excluded_class_is_no_column_but_predicting_it_is_a_mistake() -> None:
    row = tabulate([result(confusions=[WITHOUT_C])], NAMES, ["c"])[0]
    assert list(row.dice) == ["a", "b", "mean"]
    assert row.dice["b"].mean == pytest.approx(2 / 3)
    true_excluded = [[10, 0, 0], [0, 10, 0], [10, 0, 0]]
    row = tabulate([result(confusions=[true_excluded])], NAMES, ["c"])[0]
    assert row.dice["a"].mean == pytest.approx(2 / 3)
    assert row.dice["mean"].mean == pytest.approx(5 / 6)
    with pytest.raises(ValueError, match="'z' .*no class"):
        tabulate([result()], NAMES, ["z"])


def test_a_table_without_any_score() -> None:
    row = tabulate([result(confusions=[WITHOUT_C])], NAMES, ["a", "b"])[0]
    assert row.dice["mean"].mean is None
    assert differences([result(), result("cut")], NAMES, NAMES) == ()


def test_rows_are_in_the_tables_order_and_by_tile_size() -> None:
    results = [
        result("stylefilter", tile_px=64),
        result("target-only"),
        result("stylefilter", tile_px=32),
        result("stylefilter"),
        result("cut"),
    ]
    rows = [(row.row, row.tile_px) for row in tabulate(results, NAMES, ())]
    assert rows == [
        ("cut", None),
        ("stylefilter", None),
        ("stylefilter", 32),
        ("stylefilter", 64),
        ("target-only", None),
    ]
    with pytest.raises(ValueError, match=" 0 of 'cut' .*twice"):
        tabulate([result("cut"), result("cut")], NAMES, ())


def confusions(number: int, seed: int, right: float) -> list[Matrix]:
    """Of sections of 300 pixels, where about that share of each class is right."""
    rng = np.random.default_rng(seed)
    chances = np.full((3, 3), (1 - right) / 2) + np.eye(3) * (right - (1 - right) / 2)
    return [[rng.multinomial(100, line).tolist() for line in chances] for _ in range(number)]


def row_of(name: str, right: float, seed: int, number: int = 30, **changes) -> list[RowResult]:
    return [
        result(name, fold, confusions(number, seed + fold, right), **changes) for fold in range(3)
    ]


def test_identical_rows_differ_by_exactly_nothing() -> None:
    results = row_of("source-only", 0.6, 0) + row_of("cut", 0.6, 0)
    assert differences(results, NAMES, ()) == (
        Difference(row="cut", than="source-only", mean=0, low=0, high=0, standard_error=0),
    )


def test_a_known_shift_is_found() -> None:
    results = row_of("source-only", 0.6, 0) + row_of("stylefilter", 0.7, 50)
    found = differences(results, NAMES, (), seed=1)[0]
    assert (found.row, found.than) == ("stylefilter", "source-only")
    assert found.mean == pytest.approx(0.1, abs=0.01)
    assert found.low < found.mean < found.high
    # A share of 0.6 to 0.7 of 100 pixels varies by 0.048; two means of 3 classes, 3 x 30 sections.
    assert found.standard_error == pytest.approx(0.048 * (2 / 270) ** 0.5, rel=0.25)
    assert found.high - found.low == pytest.approx(3.92 * found.standard_error, rel=0.1)
    assert differences(results, NAMES, (), seed=1)[0] == found
    assert differences(results, NAMES, (), seed=2)[0].low != found.low


def test_rows_are_resampled_together() -> None:
    """Sections differ much, but in each of them one row is better by the same."""
    hard, easy = [[20, 80, 0]], [[80, 20, 0]]
    rest: Matrix = [[0, 0, 0], [0, 0, 0]]
    better = [[30, 70, 0]], [[90, 10, 0]]
    plain = [[*(hard if n % 2 else easy), *rest] for n in range(20)]
    gained = [[*(better[0] if n % 2 else better[1]), *rest] for n in range(20)]
    found = differences([result("cut", 0, plain), result("paul", 0, gained)], NAMES, ())[0]
    assert 0.05 < found.low < found.high < 0.15
    assert found.standard_error < 0.01


def test_groups_are_resampled_where_there_are_several() -> None:
    """All sections of a group are alike, so the groups' number decides the standard error."""
    wrong: Matrix = [[0, 10, 0], [0, 10, 0], [0, 0, 10]]
    gains = [PERFECT if n < 10 else wrong for n in range(20)]
    base = [wrong] * 20
    of_one, of_two = ("g",) * 20, ("g",) * 10 + ("h",) * 10

    def error(groups: tuple[str, ...]) -> float:
        results = [
            result("source-only", 0, base, groups=groups),
            result("cut", 0, gains, groups=groups),
        ]
        return differences(results, NAMES, ())[0].standard_error

    assert error(of_two) > 2 * error(of_one)


SURER: Matrix = [[7, 3, 0], [3, 7, 0], [0, 0, 10]]


def of_seeds(*of_cut: Matrix) -> list[RowResult]:
    """Sections that are all alike, so that only seeds change the difference."""
    seeds = range(len(of_cut))
    base = [result("source-only", 0, [HALF] * 4, seed=seed) for seed in seeds]
    return base + [result("cut", 0, [of_cut[n]] * 4, seed=n) for n in seeds]


def test_an_interval_holds_what_other_seeds_would_change() -> None:
    """With three seeds the mean difference follows Student's t with two degrees of freedom."""
    gains = np.array([1 / 3, 1 / 3, 2 / 15])  # mean DICE 1 and 4/5 in place of 2/3
    found = differences(of_seeds(PERFECT, PERFECT, SURER), NAMES, ())[0]
    assert found.mean == pytest.approx(gains.mean())
    error = gains.std(ddof=1) / 3**0.5
    assert found.standard_error == pytest.approx(error)
    quantile = 4.303
    assert found.high - found.mean == pytest.approx(quantile * error, rel=0.15)
    assert found.mean - found.low == pytest.approx(quantile * error, rel=0.15)


def test_seeds_that_agree_change_no_interval() -> None:
    found = differences(of_seeds(PERFECT, PERFECT), NAMES, ())[0]
    assert (found.low, found.high) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    one = row_of("source-only", 0.6, 0) + row_of("cut", 0.7, 50)
    twice = one + [each.model_copy(update={"seed": 1}) for each in one]
    once, again = (differences(results, NAMES, ())[0] for results in (one, twice))
    for name in ("mean", "low", "high", "standard_error"):
        assert getattr(again, name) == pytest.approx(getattr(once, name))


def test_two_groups_give_what_their_four_resamples_give() -> None:
    """Drawn twice g: the gain of g; twice h: none; else, in half of all, that of both."""
    wrong: Matrix = [[0, 10, 0], [0, 0, 0], [0, 0, 0]]
    right: Matrix = [[10, 0, 0], [0, 0, 0], [0, 0, 0]]
    groups = ("g", "h")
    results = [
        result("source-only", 0, [wrong, wrong], groups=groups),
        result("cut", 0, [right, wrong], groups=groups),
    ]
    found = differences(results, NAMES, ())[0]
    assert (found.mean, found.low, found.high) == (pytest.approx(2 / 3), 0, 1)
    variance = (0 + 1 + 2 * 4 / 9) / 4 - ((0 + 1 + 4 / 3) / 4) ** 2
    assert found.standard_error == pytest.approx(variance**0.5, rel=0.05)


def test_a_class_that_resamples_may_lack() -> None:
    """c is in one section: resamples without it take the mean over a and b."""
    sections = [WITHOUT_C, WITHOUT_C, PERFECT]
    results = [
        result("source-only", 0, sections),
        result("cut", 0, [[[10, 0, 0], [0, 10, 0], [0, 0, 0]]] * 2 + [PERFECT]),
    ]
    found = differences(results, NAMES, ())[0]
    # By how often the third section is drawn; DICE of b and c where it is drawn at all.
    by_draws = [1 / 6, 1 - (1 + 40 / 50 + 20 / 30) / 3, 1 - (1 + 50 / 55 + 40 / 45) / 3, 0]
    chances = np.array([8, 12, 6, 1]) / 27
    assert found.mean == pytest.approx(by_draws[1])
    assert found.low == 0
    assert found.high == pytest.approx(by_draws[1])
    error = np.sqrt(chances @ np.square(by_draws) - (chances @ by_draws) ** 2)
    assert found.standard_error == pytest.approx(error, rel=0.05)


def test_only_rows_with_the_same_tests_are_compared() -> None:
    several = [PERFECT, HALF]
    results = [
        result("source-only", 0, several),
        result("cut", 1, several),
        result("paul", 0, several, sections=("s0", "z")),
        result("stylefilter", 0, several),
        result("stylefilter", 0, several, tile_px=32),
    ]
    pairs = [(one.row, one.than) for one in differences(results, NAMES, ())]
    assert pairs == [("stylefilter", "source-only")]
    assert differences([result(), result("cut")], NAMES, ()) == ()


def test_every_pair_once_the_later_row_less_the_earlier() -> None:
    names = ("target-only", "cut", "source-only")
    results = [one for n, name in enumerate(names) for one in row_of(name, 0.8 - 0.1 * n, 10 * n)]
    found = [(one.row, one.than, round(one.mean, 1)) for one in differences(results, NAMES, ())]
    assert found == [
        ("cut", "source-only", 0.1),
        ("target-only", "source-only", 0.2),
        ("target-only", "cut", 0.1),
    ]


def test_what_labels_are_worth() -> None:
    results = [
        result("unfiltered", 0, [HALF, HALF]),
        result("unfiltered", 1, [HALF, HALF]),
        result("stylefilter", 0, [PERFECT, PERFECT], tile_px=32, num_labels=100),
        result("stylefilter", 1, [PERFECT, PERFECT], tile_px=32, num_labels=300),
        result("stylefilter", 1, [HALF, HALF], tile_px=64, num_labels=50),
        result("stylefilter", 0, [HALF, HALF], num_labels=7),
    ]
    fine, coarse = label_values(results, NAMES, (), (32, 64, 128))
    assert (fine.tile_px, fine.num_labels) == (32, 200)
    assert fine.with_filter.per_fold == (1, 1)
    assert fine.without_filter.per_fold == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (fine.low, fine.high) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert fine.labels_per_point == pytest.approx(200 / (100 / 3))
    assert (coarse.tile_px, coarse.num_labels, coarse.labels_per_point) == (64, 50, None)
    assert (coarse.low, coarse.high) == (0, 0)
    assert coarse.without_filter.per_fold == (pytest.approx(2 / 3),)
    assert label_values(results, NAMES, ("a", "b"), (32,))[0].labels_per_point is None


def test_labels_have_no_price_where_their_gain_cannot_be_told() -> None:
    """Better on one section, worse on another: some resamples have the gain below zero."""
    mixed = result("stylefilter", 0, [PERFECT, HALF, HALF], tile_px=32, num_labels=100)
    (value,) = label_values([mixed, result("unfiltered", 0, [HALF] * 3)], NAMES, (), (32,))
    assert value.low == 0 < (value.high or 0)
    assert value.with_filter.mean > value.without_filter.mean
    assert value.labels_per_point is None
    # Of one section there is no interval either.
    one = [result("stylefilter", tile_px=32, num_labels=9), result("unfiltered", 0, [HALF])]
    (value,) = label_values(one, NAMES, (), (32,))
    assert (value.low, value.high, value.labels_per_point) == (None, None, None)


def test_what_chose_weights_and_generators_is_kept() -> None:
    by = {"selected_by": "source_val", "style_selected_by": "target_val"}
    rows = tabulate([result(), result("cut", 0, **by)], NAMES, ())
    assert (rows[1].selected, rows[1].styles_selected) == (("source_val",), ("target_val",))
    assert (rows[0].styles_selected, rows[0].steps) == ((None,), (1,))
