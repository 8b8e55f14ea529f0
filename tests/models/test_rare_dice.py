"""The loss of rare classes: soft Dice of a whole batch, beside the cross-entropy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.data.domain import IGNORE, Domain
from models.losses import overlap, soft_dice
from models.rare_dice import SMOOTHING_PX, RareDice, rare_classes
from tests.models.domains import write_domain


def random_batch(size: int = 4) -> tuple[Tensor, Tensor]:
    """Return logits (B, 3, 6, 5), and labels of which some are ignored."""
    generator = torch.manual_seed(0)
    logits = torch.randn(size, 3, 6, 5, generator=generator)
    labels = torch.randint(0, 3, (size, 6, 5), generator=generator)
    labels[:, :2] = IGNORE
    return logits, labels


def test_overlap_and_soft_dice_are_the_equation() -> None:
    logits, labels = random_batch()
    dice = soft_dice(overlap(logits, labels), 100)
    for c in range(3):
        both, areas = 0.0, 0.0
        for b, y, x in np.ndindex(tuple(labels.shape)):
            if labels[b, y, x] != IGNORE:
                p = float(logits[b, :, y, x].softmax(0)[c])
                true = float(labels[b, y, x] == c)
                both, areas = both + p * true, areas + p + true
        assert float(dice[c]) == pytest.approx((2 * both + 100) / (areas + 100), rel=1e-6)


@pytest.mark.parametrize(
    ("predicted", "dice"),
    [
        ([1, 1, 0, 0], 1),
        ([0, 0, 1, 1], 100 / 104),
        ([1, 0, 0, 0], (2 + 100) / (3 + 100)),
    ],
)
def test_dice_of_sure_predictions(predicted: list[int], dice: float) -> None:
    labels = torch.tensor([1, 1, 0, 0]).view(1, 1, 4)
    logits = 200 * torch.nn.functional.one_hot(torch.tensor(predicted), 2).float()
    overlaps = overlap(logits.T.reshape(1, 2, 1, 4), labels)
    assert float(soft_dice(overlaps, 100)[1]) == pytest.approx(dice)


def test_ignored_pixels_have_no_part_in_overlap_and_gradient() -> None:
    logits, labels = random_batch()
    logits.requires_grad_()
    found = overlap(logits, labels)
    found[0].sum().backward()
    assert logits.grad is not None
    assert (logits.grad[:, :, :2] == 0).all()
    assert (logits.grad[:, :, 2:] != 0).any()
    torch.testing.assert_close(found, overlap(logits[:, :, 2:], labels[:, 2:]))
    torch.testing.assert_close(found[1].sum(), torch.tensor(2.0 * 4 * 4 * 5).double())


def test_parts_of_a_batch_give_its_loss_and_its_gradient() -> None:
    logits, labels = random_batch()
    whole = RareDice(0.5, torch.tensor([1, 2]))
    logits.requires_grad_()
    loss = whole.loss(logits, labels)
    loss.backward()
    expected = logits.grad
    dice = soft_dice(overlap(logits.detach(), labels), SMOOTHING_PX)
    assert float(loss.detach()) == pytest.approx(0.5 * (1 - float(dice[1:].mean())))

    logits.grad = None
    pairs = list(zip(logits.split(1), labels.split(1), strict=True))
    parts = whole.of_parts([overlap(*pair).detach() for pair in pairs])
    shares = [parts.loss(*pair) for pair in pairs]
    torch.stack(shares).sum().backward()
    assert float(torch.stack(shares).sum().detach()) == pytest.approx(float(loss.detach()))
    torch.testing.assert_close(logits.grad, expected)


def masked(folder: Path, *masks: list[int], split: str = "train") -> Domain:
    """Return a domain of three classes with a section for each mask, of these pixels."""
    arrays = [np.array([mask], np.uint8) for mask in masks]
    splits = ["train"] * (len(masks) - 1) + [split]
    images = [np.zeros_like(array) for array in arrays]
    return write_domain(folder / "d.zarr", images, arrays, splits, class_names=("a", "b", "c"))


@pytest.mark.parametrize(
    ("masks", "rare"),
    [
        (([0, 0, 1, 2], [0, 0, 0, 2]), [1, 2]),
        (([1, 1, 1, 2], [1, 0, 2, 2]), [0, 2]),
        (([1, 1, 2, 2], [255, 255, 255, 255]), [2]),
        (([2, 2, 2, 255], [2, 2, 2, 2]), []),
        (([255, 255, 255, 255], [255, 255, 255, 255]), []),
    ],
)
def test_all_classes_of_the_masks_but_the_most_frequent_are_rare(
    tmp_path: Path, masks: tuple[list[int], ...], rare: list[int]
) -> None:
    domain = masked(tmp_path, *masks)
    assert rare_classes(domain) == rare
    loss = RareDice.of(domain, 0.5, torch.device("cpu"))
    assert (None if loss is None else loss.rare.tolist()) == (rare or None)
    assert RareDice.of(domain, 0, torch.device("cpu")) is None


def test_only_training_masks_are_counted(tmp_path: Path) -> None:
    assert rare_classes(masked(tmp_path, [0, 0, 1, 1], [1, 1, 1, 2], split="val")) == [1]
