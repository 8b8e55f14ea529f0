"""The two discriminators of Paul et al.: one for each class, and one for the segmenter's output."""

import pytest
import torch

from models.baselines.class_discriminators import ClassDiscriminators, OutputDiscriminator
from models.training.loop import seeded_weights
from tests.models.domains import noise


def test_each_class_has_a_discriminator_of_its_own() -> None:
    with seeded_weights(0):
        network = ClassDiscriminators(3, 8).double()
    features = noise(0, 4, 3, 8).requires_grad_()
    scores = network(features)
    assert scores.shape == (4, 3)
    (gradient,) = torch.autograd.grad(scores[2, 1], features)
    assert gradient.abs().sum(2).nonzero().tolist() == [[2, 1]]
    first, _, second, _, last = network.mlps[1]
    hidden = second(first(features[2, 1]).relu()).relu()
    torch.testing.assert_close(last(hidden)[0], scores[2, 1])
    assert [layer.weight.shape for layer in (first, second, last)] == [(8, 8), (8, 8), (1, 8)]
    assert not torch.equal(network.mlps[0][0].weight, first.weight)


@pytest.mark.parametrize(("side", "scores"), [(32, 1), (63, 1), (128, 4), (500, 15)])
def test_the_output_is_judged_in_patches(side: int, scores: int) -> None:
    network = OutputDiscriminator(3, 4)
    assert network(torch.zeros(2, 3, side, side)).shape == (2, 1, scores, scores)
    widths = [layer.weight.shape[:2] for layer in network.model[::2]]
    assert widths == [(4, 3), (8, 4), (16, 8), (32, 16), (1, 32)]
    inside = torch.zeros(2, side, side, dtype=torch.bool)
    inside[1, -1, 0] = True
    judged = OutputDiscriminator.judged(inside)
    assert judged.nonzero().tolist() == [[1, 0, scores - 1, 0]]
