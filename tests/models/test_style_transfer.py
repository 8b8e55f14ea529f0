"""CUT's step, schedule and training."""

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.config.presets import preset
from models.config.stages import StyleConfig
from models.losses import patch_nce
from models.style_transfer import Cut, train_style
from models.training.lengths import Schedule
from models.training.loop import seeded_weights
from tests.models.domains import QUIET, write_domain

SMOKE = preset("smoke")


def test_schedule_in_epochs_is_the_references() -> None:
    config = StyleConfig(epochs_constant=2, epochs_decay=3)
    schedule = Schedule.of(config, num_sections=4)
    assert schedule.steps == 20
    factors = [schedule.factor(step) for step in range(1, 21)]
    assert factors[:8] == [1.0] * 8
    assert factors[8:12] == [0.75] * 4
    assert factors[12:16] == [0.5] * 4
    assert factors[16:] == [0.25] * 4


def test_schedule_in_steps_is_half_constant_half_decay() -> None:
    schedule = Schedule.of(StyleConfig(steps=5), num_sections=100)
    assert schedule.steps == 5
    assert [schedule.factor(step) for step in range(1, 6)] == pytest.approx([1, 1, 1, 2 / 3, 1 / 3])


def test_epochs_drop_the_incomplete_style_batch() -> None:
    config = StyleConfig(epochs_constant=1, epochs_decay=1, batch_size=3)
    assert Schedule.of(config, num_sections=8).steps == 4
    assert Schedule.of(config, num_sections=2).steps == 2


def tiny_cut(**changes: object) -> tuple[Cut, Tensor, Tensor]:
    config = SMOKE.style.model_copy(update=changes)
    with seeded_weights(0):
        cut = Cut(config)
    images = torch.rand(2, 1, 1, 32, 32, generator=torch.manual_seed(0)) * 2 - 1
    return cut, images[0], images[1]


@pytest.mark.parametrize("identity", [True, False])
@pytest.mark.parametrize("flip", [True, False])
def test_step_losses_are_their_formulas(identity: bool, flip: bool) -> None:
    cut, a, b = tiny_cut(nce_identity=identity, flip_equivariance=True, lambda_nce=3)
    draws = dataclasses.replace(cut.draw((32, 32), np.random.default_rng(0)), flip=flip)
    before = copy.deepcopy(cut)
    losses = cut.step(a, b, draws)

    def nce(image: Tensor, positions: Sequence[Tensor]) -> Tensor:
        output = before.generator(image.flip(-1) if flip else image)
        queries = before.generator.encode(output)
        queries = [query.flip(-1) if flip else query for query in queries]
        pairs = zip(
            before.projector(queries, positions),
            before.projector(before.generator.encode(image), positions),
            strict=True,
        )
        terms = [patch_nce(query, key, before.config.temperature).mean() for query, key in pairs]
        return 3 * sum(terms) / 5

    fake = before.generator(a.flip(-1) if flip else a)
    old, new = before.discriminator, cut.discriminator
    expected = {
        "loss_d": (old(fake).square().mean() + (old(b) - 1).square().mean()) / 2,
        "loss_gan": (new(fake) - 1).square().mean(),
        "loss_nce": nce(a, draws.positions_a),
    }
    if identity:
        expected["loss_nce_identity"] = nce(b, draws.positions_b)
    assert losses == pytest.approx({name: v.item() for name, v in expected.items()}, rel=1e-4)


def test_keys_are_reused_from_the_generators_pass() -> None:
    cut, a, b = tiny_cut()
    passes: list[int] = []
    cut.generator.model[1].register_forward_hook(lambda *call: passes.append(len(call[2])))
    cut.step(a, b, cut.draw((32, 32), np.random.default_rng(0)))
    assert passes == [2, 2]


def test_the_coin_is_fair_and_thrown_only_for_fastcut() -> None:
    rng = np.random.default_rng(0)
    fast = tiny_cut(flip_equivariance=True)[0]
    assert 70 < sum(fast.draw((32, 32), rng).flip for _ in range(200)) < 130
    assert not any(tiny_cut()[0].draw((32, 32), rng).flip for _ in range(20))


def test_cut_overfits_one_pair() -> None:
    cut, a, b = tiny_cut(num_patches=64)
    rng = np.random.default_rng(0)
    first = cut.step(a, b, cut.draw((32, 32), rng))
    for _ in range(40):
        last = cut.step(a, b, cut.draw((32, 32), rng))
    assert last["loss_nce"] < 0.5 * first["loss_nce"]
    assert all(parameter.requires_grad for parameter in cut.discriminator.parameters())


def test_style_training_uses_training_images_only(tmp_path: Path) -> None:
    poison = np.full((40, 40), np.nan, np.float32)
    good = np.random.default_rng(0).random((40, 40), dtype=np.float32)
    domains = [
        write_domain(
            tmp_path / f"{name}.zarr",
            [good, poison, poison],
            [None] * 3,
            ["train", "val", "test"],
            intensity_window=(0, 1),
        )
        for name in "st"
    ]
    generator = train_style(*domains, SMOKE, QUIET)
    assert all(bool(weight.isfinite().all()) for weight in generator.parameters())
