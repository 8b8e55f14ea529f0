"""The adversaries of Paul et al.: the classes they align, their optimisers, runs without one."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from models.baselines import adversaries, weak_labels
from models.baselines.weak_labels import adapt_weak_labels
from models.training.loop import Run
from models.training.progress import Progress
from models.training.resume import Checkpoints
from tests.models.baselines.weak_label_steps import (
    WITHOUT,
    Domains,
    adapted,
    domains_of,
    losses_of,
    spying,
    whole_sections,
)
from tests.models.domains import A, P, U
from tests.models.training_steps import untrained

pytestmark = pytest.mark.training


def test_the_segmenters_step_leaves_no_gradient_in_the_discriminators(
    domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []

    def updating(losses: Any, *_: object, **__: object) -> list[float]:
        for loss in losses:
            loss.backward()
        return [0.0]

    def learn(adversary: adversaries.Adversary, _: object) -> float:
        weights = list(adversary.network.parameters())
        kept.append(all(weight.grad is None for weight in weights))
        assert all(weight.requires_grad for weight in weights)
        return 0.0

    monkeypatch.setattr(weak_labels, "update", updating)
    monkeypatch.setattr(adversaries.Adversary, "learn", learn)
    adapted(whole_sections(), domains)
    assert kept == [True, True]


def test_only_present_classes_are_aligned(tmp_path: Path) -> None:
    """Nothing but the second class is known to be present, so its discriminator alone learns."""
    source, target = domains_of(tmp_path, [((U, P), (A, U))] * 3)
    for section in range(3):
        source.mask(source.sections[section]).setflags(write=True)
        source.mask(source.sections[section])[:] = 1
    with spying() as step:
        adapted(whole_sections(), (source, target))
    sizes = [float(gradient.abs().max()) for gradient in step.gradients[1]]
    assert max(sizes[:6]) == 0  # the first class's weights and biases
    assert min(sizes[6:]) > 0


def test_the_segmenters_gradient_is_clipped_and_the_discriminators_is_not(
    domains: Domains,
) -> None:
    with spying() as step:
        adapted(whole_sections(weak={"clip_norm": 1e-3}), domains)
    norms = [float(torch.stack([g.norm() for g in of]).norm()) for of in step.gradients]
    assert norms[0] == pytest.approx(1e-3, rel=1e-4)
    assert min(norms[1:]) > 2e-3
    assert step.clip_norms == [1e-3, math.inf, math.inf]


def test_discriminators_are_adam_at_their_own_rate() -> None:
    config = whole_sections(weak={"learning_rate": 3e-3})
    made = adversaries.adversaries(untrained(config), config.weak_labels, "float32")
    for adversary in made.values():
        assert isinstance(adversary.optimiser, torch.optim.Adam)
        assert adversary.optimiser.defaults["lr"] == 3e-3
        assert adversary.optimiser.defaults["betas"] == (0.9, 0.99)


@pytest.mark.parametrize(
    ("weak", "names"),
    [
        ({}, {"class", "output"}),
        ({"weight_class_alignment": 0.0}, {"output"}),
        ({"weight_output_alignment": 0.0}, {"class"}),
        (WITHOUT, set()),
    ],
)
def test_an_alignment_of_weight_zero_has_no_discriminator(
    domains: Domains, weak: Mapping[str, Any], names: set[str], tmp_path: Path
) -> None:
    config, reports = whole_sections(weak=weak), list[Progress]()
    run = Run(reports.append, Checkpoints(tmp_path / "saved"))
    adapt_weak_labels(untrained(config), *domains, config, run)
    state = torch.load(tmp_path / "saved" / "adapt-0.pt", weights_only=True)
    assert state["modules"].keys() == {"segmenter", *names}
    assert state["optimisers"].keys() == {"segmenter", *names}
    expected = {f"loss_{name}_{what}" for name in names for what in ("alignment", "discriminator")}
    assert losses_of(reports[0]).keys() == {"loss_source", "loss_labels", *expected}
