"""Logits and features pooled over regions, against loops over pixels."""

from typing import Any

import numpy as np
import torch

from models.baselines.pooling import at_squares, pooled
from models.baselines.regions import Regions
from models.losses import smooth_maximum, weak_label_loss
from tests.models.domains import noise


def random_regions(seed: int, side: int = 13, pool: int = 4) -> tuple[list[Any], Regions]:
    """Two crops of three and two regions of no particular shape, and one without any."""
    rng, crops = np.random.default_rng(seed), []
    for number in (3, 0, 2):
        numbers = rng.integers(-1, number, (side, side)) if number else np.full((side, side), -1)
        crops.append((numbers, rng.integers(-1, 2, (number, 4))))
    return crops, Regions.of(crops, pool)


def test_pooling_is_the_mean_of_the_pixels_of_a_region_in_a_square() -> None:
    crops, regions = random_regions(0)
    values, coarse = noise(0, 3, 6, 13, 13), noise(1, 3, 6, 3, 3)
    values[1] = torch.nan  # of no region
    assert np.array_equal(regions.labels, np.concatenate([labels for _, labels in crops]))
    means, picked = pooled(values, regions), at_squares(coarse, regions, 4)
    row = 0
    for crop, (numbers, labels) in enumerate(crops):
        for region in range(len(labels)):
            place = 0
            for y, x in np.ndindex(4, 4):
                window = np.s_[4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
                inside = torch.from_numpy(numbers[window] == region)
                if not inside.any():
                    continue
                assert regions.sizes[row, place] == inside.sum()
                expected = values[crop][:, *window][:, inside].mean(1)
                torch.testing.assert_close(means[row, place], expected)
                at = coarse[crop, :, min(y, 2), min(x, 2)]
                assert torch.equal(picked[row, place], at)
                place += 1
            assert regions.sizes[row, place:].sum() == 0
            row += 1
    assert row == len(regions.sizes)


def test_the_coarse_value_of_a_square_is_that_at_its_middle() -> None:
    regions = Regions.of([(np.zeros((32, 32), np.int64), np.ones((1, 1), np.int64))], 8)
    values = torch.arange(4.0).reshape(1, 1, 2, 2)
    rows = at_squares(values, regions, 16).reshape(4, 4)
    assert rows.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_crops_without_regions_can_be_pooled() -> None:
    regions = Regions.of([(np.full((9, 9), -1), np.zeros((0, 4), np.int64))], 4)
    values = noise(0, 1, 4, 9, 9).requires_grad_()
    p = smooth_maximum(pooled(values, regions), torch.from_numpy(regions.sizes), 1.0)
    assert p.shape == (0, 4)
    weak_label_loss(p, torch.from_numpy(regions.labels)).backward()
    assert torch.equal(values.grad, torch.zeros_like(values))
