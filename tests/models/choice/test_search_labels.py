"""The search with labels that tell little or nothing, on a target of inverted contrast."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.data.domain import Domain, Tile
from models.data.labels import ABSENT, PRESENT, UNKNOWN
from models.data.tiles import relabelled
from models.metadata import RAW
from models.segmentation import pretrain
from models.training.loop import Run
from models.training.resume import Checkpoints
from tests.models.choice.test_search import Pairs, chosen, config, mean_dice
from tests.models.domains import ignore, square_domain

pytestmark = pytest.mark.training

Change = Callable[[int, Tile], tuple[int, ...]]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """A trained source, and a target whose contrast is inverted; both have tiles of 16 px."""
    folder = tmp_path_factory.mktemp("pairs")
    source = square_domain(folder / "s.zarr")
    target = square_domain(folder / "t.zarr", bright=False)
    inverted, alike = (relabelled(each, 16, splits=("train",)) for each in (target, source))
    states = folder / "states"
    states.mkdir()
    pretrain(source, config(), Run(ignore, Checkpoints(states)))
    return Pairs(source, inverted, alike, states)


def with_labels(target: Domain, change: Change) -> Domain:
    tiles = [replace(tile, labels=change(n, tile)) for n, tile in enumerate(target.tiles)]
    return Domain(target.store, target.info, target.sections, tiles, working_nm=target.working_nm)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _n, _t: (PRESENT, ABSENT), id="absent everywhere"),
        pytest.param(lambda _n, _t: (PRESENT, PRESENT), id="present everywhere"),
        pytest.param(lambda _n, _t: (PRESENT, UNKNOWN), id="of another class alone"),
        pytest.param(lambda n, t: t.labels if n < 5 else (UNKNOWN, UNKNOWN), id="five tiles"),
    ],
)
def test_labels_that_can_judge_nothing_leave_the_source_only_segmenter(
    pairs: Pairs, tmp_path: Path, change: Change
) -> None:
    target = with_labels(pairs.inverted, change)
    stages: list[str] = []
    made = chosen(pairs, target, tmp_path, lambda p: stages.append(p.stage), max_trained=1)
    assert made.verdict is not None
    assert (made.verdict.outcome, made.verdict.use) == ("not_judged", "source-only")
    assert (made.adapted is made.source_only, made.view) == (True, RAW)
    assert "adapt" not in stages
    assert made.verdict.findings


def test_labels_of_one_class_are_enough(pairs: Pairs, tmp_path: Path) -> None:
    target = with_labels(pairs.inverted, lambda _, tile: (UNKNOWN, tile.labels[1]))
    made = chosen(pairs, target, tmp_path, target_statistics=False)
    assert made.verdict is not None
    assert made.verdict.outcome == "better"
    before = replace(made, adapted=made.source_only, view=RAW)
    assert mean_dice(made, target) > mean_dice(before, target) + 0.2


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_some_wrong_labels_make_the_choice_no_worse(
    pairs: Pairs, tmp_path: Path, share: float
) -> None:
    wrong = np.random.default_rng(0).random(len(pairs.inverted.tiles)) < share

    def turned(number: int, tile: Tile) -> tuple[int, ...]:
        square = tile.labels[1]
        return (
            (tile.labels[0], ABSENT if square == PRESENT else PRESENT)
            if wrong[number]
            else (tile.labels)
        )

    target = with_labels(pairs.inverted, turned)
    made = chosen(pairs, target, tmp_path, target_statistics=False)
    before = replace(made, adapted=made.source_only, view=RAW)
    assert mean_dice(made, target) >= mean_dice(before, target) - 0.01


def test_a_target_that_is_its_source_trains_nothing(pairs: Pairs, tmp_path: Path) -> None:
    same = relabelled(pairs.source, 16, splits=("train",))
    stages: list[str] = []
    made = chosen(pairs, same, tmp_path, lambda p: stages.append(p.stage), max_trained=1)
    assert made.verdict is not None
    assert (made.verdict.outcome, made.verdict.use) == ("not_judged", "source-only")
    assert made.adapted is made.source_only
    assert "adapt" not in stages
