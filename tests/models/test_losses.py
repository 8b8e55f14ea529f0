"""Losses and pseudo-labels against numbers and loops."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.losses import (
    class_features,
    cross_entropy,
    domain_loss,
    lsgan,
    patch_nce,
    reconstruction_error,
    smooth_maximum,
    weak_label_loss,
)
from models.networks.patch_projector import unit_vectors
from models.pseudo_labels import pseudo_labels
from tests.models.domains import (
    A,
    P,
    U,
    noise,
    uniform,
)
from tests.models.training_steps import error_loop


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


SIZES = torch.tensor([[64.0, 3, 10, 0], [1, 0, 0, 0], [8, 8, 8, 8]], dtype=torch.float64)


def pixels(region: int, values: Tensor) -> list[Tensor]:
    """A region's values, once for every pixel of its positions."""
    sizes = SIZES[region].int().tolist()
    return [value for value, size in zip(values, sizes, strict=True) for _ in range(size)]


def smooth_maximum_loop(logits: Tensor, k: float) -> Tensor:
    result = torch.zeros(logits.shape[0], logits.shape[2], dtype=torch.float64)
    for r, c in np.ndindex(*result.shape):
        exps = [math.exp(k * float(a)) for a in pixels(r, logits[r, :, c])]
        result[r, c] = 1 / (1 + math.exp(-math.log(sum(exps) / len(exps)) / k))
    return result


@pytest.mark.parametrize("k", [0.1, 1.0, 7.0])
def test_smooth_maximum_is_the_equation(k: float) -> None:
    logits = noise(0, 3, 4, 5)
    torch.testing.assert_close(smooth_maximum(logits, SIZES, k), smooth_maximum_loop(logits, k))


def test_smooth_maximum_lies_between_mean_and_maximum() -> None:
    logits, sizes = (
        torch.tensor([[[4.0], [-2.0], [1.0], [99.0]]]),
        torch.tensor([[1.0, 1, 1, 0]]).double(),
    )
    low, high = (float(smooth_maximum(logits.double(), sizes, k)) for k in (1e-6, 1e3))
    assert low == pytest.approx(1 / (1 + math.exp(-1.0)), abs=1e-5)  # the mean of three
    assert high == pytest.approx(1 / (1 + math.exp(-4.0)), abs=1e-4)
    equal = torch.full((1, 4, 1), 0.7)
    assert float(smooth_maximum(equal, sizes, 1.0)) == pytest.approx(1 / (1 + math.exp(-0.7)))


def test_smooth_maximum_teaches_positions_by_their_share() -> None:
    """d p / d a = p (1 - p) times the softmax over the region's pixels."""
    logits = noise(0, 3, 4, 2).requires_grad_()
    p = smooth_maximum(logits, SIZES, 1.0)
    (gradient,) = torch.autograd.grad(p.sum(), logits)
    shares = SIZES[..., None] * logits.detach().exp()
    expected = (p * (1 - p))[:, None] * shares / shares.sum(1, keepdim=True)
    torch.testing.assert_close(gradient, expected)
    assert float(gradient[0, 3].abs().sum()) == 0  # no position


def label_loss_loop(p: Tensor, labels: Tensor) -> float:
    errors = []
    for r, c in np.ndindex(*p.shape):
        value = min(max(float(p[r, c]), 1e-7), 1 - 1e-7)
        if labels[r, c] != U:
            errors.append(-math.log(value if labels[r, c] == P else 1 - value))
    return sum(errors) / len(errors)


def test_label_loss_is_the_mean_over_known_labels() -> None:
    p = noise(0, 4, 5).sigmoid()
    p[0, 0], p[0, 1] = 0, 1
    labels = torch.from_numpy(np.random.default_rng(0).integers(-1, 2, (4, 5)))
    labels[0, 0], labels[0, 1] = P, A
    expected = label_loss_loop(p, labels)
    assert float(weak_label_loss(p, labels)) == pytest.approx(expected, rel=1e-12)
    known = (labels != U).sum()
    in_parts = [weak_label_loss(p[i : i + 2], labels[i : i + 2], known) for i in (0, 2)]
    assert float(sum(in_parts)) == pytest.approx(expected, rel=1e-12)
    assert float(weak_label_loss(torch.tensor([[0.25, 0.3]]), torch.tensor([[P, U]]))) == (
        pytest.approx(math.log(4))
    )


@pytest.mark.parametrize("shape", [(3, 4), (0, 4)])
@pytest.mark.parametrize("num_known", [None, torch.tensor(0.0, dtype=torch.float64)])
def test_without_known_labels_the_loss_and_its_gradient_are_zero(
    shape: tuple[int, int], num_known: Tensor | None
) -> None:
    logits = noise(0, shape[0], 4, 4).requires_grad_()
    p = smooth_maximum(logits, torch.ones(shape[0], 4), 1.0)
    loss = weak_label_loss(p, torch.full(shape, U), num_known)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_unknown_labels_teach_nothing() -> None:
    p = noise(0, 2, 3).sigmoid().requires_grad_()
    weak_label_loss(p, torch.tensor([[U, P, A], [U, U, U]])).backward()
    assert (p.grad != 0).tolist() == [[False, True, True], [False, False, False]]


def class_features_loop(features: Tensor, logits: Tensor) -> Tensor:
    regions, _, classes = logits.shape
    result = torch.zeros(regions, classes, features.shape[2], dtype=torch.float64)
    for r, c in np.ndindex(regions, classes):
        attention = [math.exp(float(a)) for a in pixels(r, logits[r, :, c])]
        for weight, feature in zip(attention, pixels(r, features[r]), strict=True):
            result[r, c] += weight / sum(attention) * feature
    return result


def test_class_features_are_the_equation() -> None:
    features, logits = noise(0, 3, 4, 6), noise(1, 3, 4, 5)
    expected = class_features_loop(features, logits)
    torch.testing.assert_close(class_features(features, logits, SIZES), expected)
    sure = torch.full((3, 4, 5), -1e4, dtype=torch.float64)
    sure[:, 0] = 0
    torch.testing.assert_close(
        class_features(features, sure, SIZES), features[:, :1].expand(3, 5, 6)
    )


def test_no_gradient_into_the_attention() -> None:
    features, logits = noise(0, 3, 4, 6).requires_grad_(), noise(1, 3, 4, 5).requires_grad_()
    class_features(features, logits, SIZES).sum().backward()
    assert logits.grad is None
    assert float(features.grad[SIZES > 0].abs().min()) > 0
    assert float(features.grad[SIZES == 0].abs().max()) == 0


@pytest.mark.parametrize("target", [True, False])
def test_domain_loss_is_the_weighted_cross_entropy(target: bool) -> None:
    scores, weights = noise(0, 3, 4), noise(1, 3, 4).abs()
    expected = sum(
        float(w) * -math.log(1 / (1 + math.exp(-float(s if target else -s))))
        for s, w in zip(scores.ravel(), weights.ravel(), strict=True)
    )
    assert float(domain_loss(scores, weights, target=target)) == pytest.approx(expected)
    scores.requires_grad_()
    nothing = domain_loss(scores, torch.zeros_like(weights), target=target)
    nothing.backward()
    assert nothing.item() == 0
    assert torch.equal(scores.grad, torch.zeros_like(scores))


def test_losses_are_computed_in_full_precision() -> None:
    logits, sizes = torch.full((1, 2, 3), 0.3, dtype=torch.bfloat16), torch.ones(1, 2)
    assert smooth_maximum(logits, sizes, 1.0).dtype == torch.float32
    assert class_features(logits, logits, sizes).dtype == torch.float32
    assert domain_loss(logits, torch.ones(1, 2, 3), target=True).dtype == torch.float32


def test_the_error_is_the_mean_over_pixels_that_are_no_padding() -> None:
    reconstructed, wanted = uniform(0, 3, 1, 5, 7) * 3 - 1, uniform(1, 3, 1, 5, 7)
    inside = uniform(2, 3, 5, 7) < 0.6
    expected = error_loop(reconstructed, wanted, inside)
    assert float(reconstruction_error(reconstructed, wanted, inside)) == pytest.approx(expected)
    everywhere = torch.ones_like(inside)
    torch.testing.assert_close(
        reconstruction_error(reconstructed, wanted, everywhere), F.mse_loss(reconstructed, wanted)
    )
    halves = [[x[:1], x[1:]] for x in (reconstructed, wanted, inside)]
    in_parts = [reconstruction_error(*part, inside.sum()) for part in zip(*halves, strict=True)]
    assert float(sum(in_parts)) == pytest.approx(expected)


def test_padding_has_no_part_in_error_and_gradient() -> None:
    reconstructed, wanted = uniform(0, 2, 1, 4, 4), uniform(1, 2, 1, 4, 4)
    inside = uniform(2, 2, 4, 4) < 0.5
    expected = reconstruction_error(reconstructed, wanted, inside)
    spoilt = reconstructed.masked_fill(~inside[:, None], torch.nan).requires_grad_()
    loss = reconstruction_error(spoilt, wanted, inside)
    loss.backward()
    assert torch.equal(loss, expected)
    assert spoilt.grad is not None
    by_hand = 2 * (reconstructed - wanted) / inside.sum()
    torch.testing.assert_close(spoilt.grad, by_hand.masked_fill(~inside[:, None], 0))


def test_the_error_of_padding_only_is_zero_with_zero_gradient() -> None:
    reconstructed = uniform(0, 1, 1, 4, 4).requires_grad_()
    nowhere = torch.zeros(1, 4, 4, dtype=torch.bool)
    loss = reconstruction_error(reconstructed, uniform(1, 1, 1, 4, 4), nowhere)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(reconstructed.grad, torch.zeros_like(reconstructed))


def test_the_error_is_computed_in_full_precision() -> None:
    wanted = torch.full((1, 1, 2, 2), 0.3)
    reconstructed = torch.full((1, 1, 2, 2), 0.5, dtype=torch.bfloat16)
    loss = reconstruction_error(reconstructed, wanted, torch.ones(1, 2, 2, dtype=torch.bool))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(0.04, rel=1e-6)
