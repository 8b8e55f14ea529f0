"""Losses and pseudo-labels against numbers and loops."""

import math

import pytest
import torch
from torch import Tensor

from models.losses import cross_entropy, lsgan, patch_nce
from models.networks.patch_projector import unit_vectors
from models.pseudo_labels import pseudo_labels


def patch_nce_loop(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """The equation, image by image and position by position."""
    losses = torch.zeros(queries.shape[:2], dtype=queries.dtype)
    for image in range(queries.shape[0]):
        for i in range(queries.shape[1]):
            scores = [float(queries[image, i] @ key) / temperature for key in keys[image]]
            losses[image, i] = -scores[i] + math.log(sum(math.exp(score) for score in scores))
    return losses


def embeddings(seed: int, *shape: int) -> Tensor:
    values = torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(seed))
    return unit_vectors(values)


def test_patch_nce_is_the_equation() -> None:
    queries, keys = embeddings(0, 2, 9, 5), embeddings(1, 2, 9, 5)
    expected = patch_nce_loop(queries, keys, 0.07)
    torch.testing.assert_close(patch_nce(queries, keys, 0.07), expected)


def test_patch_nce_of_orthogonal_keys() -> None:
    units = torch.eye(4, dtype=torch.float64)[None]
    expected = math.log(math.exp(1 / 0.5) + 3) - 1 / 0.5
    torch.testing.assert_close(
        patch_nce(units, units, 0.5), torch.full((1, 4), expected, dtype=torch.float64)
    )


def test_patch_nce_of_equal_vectors_is_chance() -> None:
    same = embeddings(0, 1, 1, 5).expand(1, 8, 5)
    losses = patch_nce(same, same)
    torch.testing.assert_close(losses, torch.full((1, 8), math.log(8), dtype=torch.float64))


def test_no_gradient_into_keys() -> None:
    queries = embeddings(0, 1, 6, 4).requires_grad_()
    keys = embeddings(1, 1, 6, 4).requires_grad_()
    patch_nce(queries, keys).mean().backward()
    assert keys.grad is None
    assert float(queries.grad.abs().sum()) > 0


def test_lsgan() -> None:
    scores = torch.tensor([[0.0, 1.0], [0.5, -1.0]])
    assert float(lsgan(scores, real=True)) == pytest.approx((1 + 0 + 0.25 + 4) / 4)
    assert float(lsgan(scores, real=False)) == pytest.approx((0 + 1 + 0.25 + 1) / 4)


def test_cross_entropy_is_the_mean_over_pixels_with_a_class() -> None:
    logits = torch.zeros(1, 4, 2, 2)
    logits[0, 2, 0, 0] = math.log(5)
    labels = torch.tensor([[[2, 1], [255, 255]]])
    expected = (math.log(8 / 5) + math.log(4)) / 2
    assert float(cross_entropy(logits, labels)) == pytest.approx(expected)


def test_cross_entropy_of_ignored_pixels_only_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


LOGITS = torch.tensor([3.0, 2.0, 1.0, -5.0]).reshape(1, 4, 1, 1).expand(1, 4, 2, 2)


def allowing(*classes: int) -> Tensor:
    allowed = torch.zeros(1, 4, 2, 2, dtype=torch.bool)
    allowed[:, list(classes)] = True
    return allowed


@pytest.mark.parametrize(
    ("allowed", "label"),
    [
        (None, 0),
        (allowing(0, 1, 2, 3), 0),
        (allowing(1, 2, 3), 1),
        (allowing(2), 2),
        (allowing(3), 3),
        (allowing(), 255),
    ],
    ids=["unknown", "all present", "best absent", "one present", "unlikely only", "all absent"],
)
def test_pseudo_labels(allowed: Tensor | None, label: int) -> None:
    assert torch.equal(pseudo_labels(LOGITS, allowed), torch.full((1, 2, 2), label))


def test_pseudo_labels_filter_pixel_by_pixel() -> None:
    allowed = allowing(0, 1, 2, 3)
    allowed[:, 0, 0] = False
    allowed[:, :, 1, 1] = False
    assert pseudo_labels(LOGITS, allowed).tolist() == [[[1, 1], [0, 255]]]


def test_logits_filter_is_equation_3() -> None:
    logits = torch.randn(2, 5, 8, 8, generator=torch.manual_seed(0))
    allowed = torch.rand(2, 5, 8, 8, generator=torch.manual_seed(1)) < 0.5
    product = (logits.softmax(dim=1) * allowed).argmax(dim=1)
    some = allowed.any(dim=1)
    assert torch.equal(pseudo_labels(logits, allowed)[some], product[some])
    assert bool((pseudo_labels(logits, allowed)[~some] == 255).all())


def test_a_stricter_filter_keeps_a_subset_of_the_labels() -> None:
    logits = torch.randn(1, 5, 16, 16, generator=torch.manual_seed(0))
    loose = torch.rand(1, 5, 16, 16, generator=torch.manual_seed(1)) < 0.8
    strict = loose & (torch.rand(1, 5, 16, 16, generator=torch.manual_seed(2)) < 0.5)
    before, after = pseudo_labels(logits, loose), pseudo_labels(logits, strict)
    changed = before != after
    lost = ~strict.gather(1, before.clamp_max(4)[:, None])[:, 0]
    assert bool((lost[changed]).all())
    assert bool((before[after == before] != 255).any())
    assert int((after == 255).sum()) > int((before == 255).sum())
