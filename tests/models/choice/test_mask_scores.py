"""Masks compare predictions: how they are divided, and DICE with its interval."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.choice.judging import Candidate, Facts, judge
from models.choice.label_scores import Evidence, gather
from models.choice.mask_scores import DividedMasks, MaskPart
from models.choice.steadiness import Predict
from models.config.rounds import RoundsConfig
from models.data.domain import Domain
from tests.models.choice.predictions import finder, nothing, rare_domain
from tests.models.domains import write_domain


@pytest.mark.parametrize(
    ("wanted", "names", "training", "judging"),
    [
        (0, 0, [], []),
        (1, 1, [("s4", 0, 0.5)], [("s4", 0.5, 1)]),
        (2, ("s2",), [("s2", 0, 1)], [("s6", 0, 1)]),
        (3, ("s1", "s6"), [("s1", 0, 1), ("s6", 0, 1)], [("s4", 0, 1)]),
        (("s0",), ("s0",), [("s0", 0, 0.5)], [("s0", 0.5, 1)]),
    ],
)
def test_a_part_of_the_masks_trains_and_another_judges(
    tmp_path: Path, wanted: Any, names: Any, training: Any, judging: Any
) -> None:
    target = rare_domain(tmp_path / "t.zarr")
    divided = DividedMasks.of(target, RoundsConfig(masked_sections=wanted))
    for parts, expected in ((divided.training, training), (divided.judging, judging)):
        assert [(each.section.name, each.top, each.bottom) for each in parts] == expected
    assert divided.rounds.masked_sections == names
    assert divided.rounds.mask_rows == (0.5 if len(training) == 1 and wanted != 2 else 1.0)


def test_parts_are_the_same_at_every_size(tmp_path: Path) -> None:
    """The lower half of 64 rows, and of 32."""
    target = rare_domain(tmp_path / "t.zarr")
    part = MaskPart(target.sections[0], 0.5)
    for domain, side in ((target, 64), (target.at(8.0), 32)):
        blocks = part.compared(domain, np.zeros((side, side), np.intp))
        assert len(blocks) == 16
        assert sum(int(block.sum()) for block in blocks) == side * side // 2


def seen(target: Domain, predict: Predict, *sections: int) -> Evidence:
    masks = [MaskPart(target.sections[n]) for n in sections]
    return gather(predict, target, target.sections, masks=masks)


def test_the_loss_is_that_of_dice(tmp_path: Path) -> None:
    target = rare_domain(tmp_path / "t.zarr")
    found = seen(target, finder(shrink=3), 0, 1)  # 6 of 12 pixels a side, so a quarter
    assert found.masks is not None
    square, rest = 2 * 36 / (36 + 144), 2 * (4096 - 144) / (2 * (4096 - 144) + 108)
    assert found.masks.dice() == pytest.approx((rest, square))
    assert found.loss() == pytest.approx(1 - (square + rest) / 2)
    assert len(found.masks.confusions) == 2 * 16


def test_what_was_not_annotated_does_not_count(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    target = write_domain(tmp_path / "t.zarr", [mask], [mask], ["train"])
    (section,) = target.sections

    def half(image: NDArray[np.float32]) -> NDArray[np.float32]:
        right = np.broadcast_to(np.arange(8) >= 4, image.shape).astype(np.float32)
        return np.stack([1 - right, right])

    for unannotated, wrong in ((None, 32), ((1,), 0)):
        part = MaskPart(replace(section, unannotated=unannotated))
        (evidence,) = [gather(half, target, (), masks=[part]).masks]
        assert evidence is not None
        assert evidence.confusions.sum(axis=0).tolist() == [[32, wrong], [0, 0]]
        assert not evidence.tells  # one class alone compares nothing


def verdict(base: Evidence, other: Evidence) -> Any:
    candidates = [Candidate("source-only", "Source-only", base), Candidate("c", "C", other)]
    return judge(candidates, Facts(("background", "square")))


def test_masks_decide_where_tiles_cannot_see(tmp_path: Path) -> None:
    """Both find every square, and one of them draws it too small: presence is alike."""
    target = rare_domain(tmp_path / "t.zarr")
    small, right = (seen(target, finder(0.9, shrink=shrink), 0, 1, 2, 3) for shrink in (3, 0))
    found = verdict(small, right)
    assert (found.outcome, found.use, found.judged_by) == ("better", "c", "masks")
    gain = found.candidates[1].gain
    assert gain.value == pytest.approx(small.loss() - right.loss())  # type: ignore[operator]
    assert gain.low > 0.2
    assert found.candidates[1].classes["square"].mask_dice == 1
    assert verdict(right, small).use == "source-only"
    by_tiles = [gather(finder(0.9, shrink=n), target, target.sections) for n in (3, 0)]
    assert verdict(*by_tiles).judged_by == "labels"


def test_a_network_that_finds_nothing_loses(tmp_path: Path) -> None:
    target = rare_domain(tmp_path / "t.zarr")
    base = seen(target, finder(shrink=4), *range(8))
    assert verdict(base, seen(target, nothing, *range(8))).outcome == "worse"


def test_equal_predictions_are_not_told_apart(tmp_path: Path) -> None:
    target = rare_domain(tmp_path / "t.zarr")
    same = seen(target, finder(), 0)
    found = verdict(same, same)
    assert (found.outcome, found.use) == ("not_told", "source-only")
    assert "mask" in found.advice[1]
