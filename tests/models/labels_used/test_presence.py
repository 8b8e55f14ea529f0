"""The loss of a tile's top pixels: by hand, against a loop, and what it leaves alone."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.baselines.regions import RegionMap
from models.labels_used.presence import TilePixels, log_odds, presence_loss
from tests.models.domains import A, P, U, noise


def tiles(*crops: RegionMap) -> TilePixels:
    return TilePixels.of(crops)


def softplus(z: float) -> float:
    return math.log1p(math.exp(z))


def test_log_odds_are_those_of_the_probabilities() -> None:
    logits = noise(0, 2, 4, 3, 5)
    p = logits.softmax(1)
    torch.testing.assert_close(log_odds(logits), (p / (1 - p)).log())


def test_two_classes_by_hand() -> None:
    """Log-odds of the second class are 0 to 9; those of the first are the same, negative."""
    logits = torch.zeros(1, 2, 2, 5)
    logits[0, 1] = torch.arange(10.0).reshape(2, 5)
    crop = (np.zeros((2, 5), np.int64), np.array([[U, P]]))
    square = presence_loss(logits, tiles(crop), 0.2)
    assert float(square) == pytest.approx((softplus(-9) + softplus(-8)) / 2, rel=1e-5)
    absent = (crop[0], np.array([[A, A]]))
    both = (softplus(0) + softplus(-1)) / 2, (softplus(9) + softplus(8)) / 2
    assert float(presence_loss(logits, tiles(absent), 0.2)) == pytest.approx(
        sum(both) / 2, rel=1e-5
    )


def loop(logits: Tensor, crops: list[RegionMap], share: float) -> float:
    """Region by region, class by class."""
    total, known = 0.0, 0
    for b, (numbers, labels) in enumerate(crops):
        p = logits[b].softmax(0).numpy()
        for region, of_region in enumerate(labels):
            inside = numbers == region
            top = max(1, round(share * int(inside.sum())))
            for c, label in enumerate(of_region):
                if label == U:
                    continue
                highest = np.sort(p[c][inside])[::-1][:top]
                total += float(-np.log(highest if label == P else 1 - highest).mean())
                known += 1
    return total / known


def halves(top: list[int], bottom: list[int], *, gap: int = 0) -> RegionMap:
    numbers: NDArray[np.int64] = np.full((8, 8), -1)
    numbers[:3], numbers[3 + gap :] = 0, 1
    return numbers, np.array([top, bottom])


def test_the_pixels_of_each_tile() -> None:
    first = (np.array([[1, -1], [0, 1]]), np.array([[A, P], [P, U]]))
    second = (np.array([[-1, 0], [0, 0]]), np.array([[U, A]]))
    found = tiles(first, second)
    assert found.labels.tolist() == [[A, P], [P, U], [U, A]]
    assert found.pixels.tolist() == [[2, -1, -1], [0, 3, -1], [5, 6, 7]]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_the_loss_is_that_of_a_loop(share: float) -> None:
    crops = [halves([P, A, U], [A, P, P]), halves([U, U, P], [P, P, A], gap=2)]
    logits = noise(1, 2, 3, 8, 8)
    assert float(presence_loss(logits, tiles(*crops), share)) == pytest.approx(
        loop(logits, crops, share), rel=1e-9
    )


def test_parts_of_a_batch_add_up() -> None:
    crops = [halves([P, A], [A, P]), halves([U, P], [P, U], gap=1)]
    logits, known = noise(2, 2, 2, 8, 8), torch.tensor(6)
    whole = presence_loss(logits, tiles(*crops), 0.1)
    parts = [
        presence_loss(logits[i : i + 1], tiles(crop), 0.1, known) for i, crop in enumerate(crops)
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_only_the_top_pixels_of_known_labels_are_pushed() -> None:
    logits = noise(3, 1, 2, 8, 8).requires_grad_()
    presence_loss(logits, tiles(halves([U, P], [U, U])), 0.1).backward()
    assert logits.grad is not None
    pushed = logits.grad[0, 1] != 0
    odds = (logits[0, 1] - logits[0, 0]).detach()
    assert pushed.sum() == 2  # a tenth of 24 pixels
    assert bool((odds[:3][pushed[:3]] >= odds[:3].flatten().sort().values[-2]).all())
    assert bool((logits.grad[0, 1][pushed] < 0).all())  # descent raises the class's logit


@pytest.mark.parametrize("labels", [[], [[U, U]]])
def test_without_a_known_label_the_loss_and_its_gradient_are_zero(labels: list[list[int]]) -> None:
    logits = noise(4, 1, 2, 4, 4).requires_grad_()
    numbers = np.full((4, 4), len(labels) - 1)
    loss = presence_loss(logits, tiles((numbers, np.array(labels, np.int64).reshape(-1, 2))), 0.03)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert bool((logits.grad == 0).all())


def test_extreme_logits_stay_finite() -> None:
    logits = torch.full((1, 2, 8, 8), 500.0)
    logits[:, 0] = -500
    logits.requires_grad_()
    loss = presence_loss(logits, tiles(halves([P, A], [A, P])), 0.1)
    loss.backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert loss.item() == pytest.approx((1000 + 1000) / 4)
