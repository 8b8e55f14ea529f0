"""Step 1 of StyleFilter: CUT and FastCUT (Park et al. 2020), from the target to the source.

As in CUT, A is the domain to translate (the target) and B the style to imitate (the source).
Legend: B batch, S side of the crop; images (B, 1, S, S) float32 in [-1, 1].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Self

import numpy as np
import torch
from torch import Tensor

from models.config import StyleConfig, StyleFilterConfig
from models.data.domain import Domain, Section
from models.data.samples import shuffled_passes, style_image
from models.device import resolve
from models.losses import lsgan, patch_nce
from models.networks.discriminator import Discriminator
from models.networks.generator import Generator, tap_sizes
from models.networks.patch_projector import PatchProjector, sample_positions
from models.progress import Report
from models.training import random_stream, seeded_weights, train, update

_BETAS = (0.5, 0.999)


@dataclass(frozen=True)
class Draws:
    """The random choices of one step: FastCUT's coin, and flat positions per tap for A and B."""

    flip: bool
    positions_a: Sequence[Tensor]
    positions_b: Sequence[Tensor]


class Cut:
    """The three networks, their optimisers, and the training step."""

    def __init__(self, config: StyleConfig, device: torch.device | None = None) -> None:
        self.config = config
        self.generator = Generator(config.base_filters, config.num_blocks).to(device)
        self.projector = PatchProjector(self.generator.tap_channels, config.projector_width).to(
            device
        )
        self.discriminator = Discriminator(config.base_filters).to(device)
        self._optimiser_g, self._optimiser_f, self._optimiser_d = (
            torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=_BETAS)
            for network in (self.generator, self.projector, self.discriminator)
        )

    def set_rate(self, factor: float) -> None:
        """Scale the learning rate of all three optimisers."""
        for optimiser in (self._optimiser_g, self._optimiser_f, self._optimiser_d):
            for group in optimiser.param_groups:
                group["lr"] = self.config.learning_rate * factor

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> Draws:
        """Draw the choices for images of ``size`` (H, W) in the reference's order: coin, A, B."""
        flip = self.config.flip_equivariance and bool(rng.random() < 0.5)
        sizes, count = tap_sizes(*size), self.config.num_patches
        positions_a = sample_positions(sizes, count, rng)
        positions_b = sample_positions(sizes, count, rng) if self.config.nce_identity else []
        device = next(self.generator.parameters()).device
        return Draws(flip, [p.to(device) for p in positions_a], [p.to(device) for p in positions_b])

    def step(self, real_a: Tensor, real_b: Tensor, draws: Draws) -> Mapping[str, float]:
        """Update D, then G and F together; both images (B, 1, H, W) in [-1, 1]."""
        real = torch.cat([real_a, real_b]) if self.config.nce_identity else real_a
        translated, keys = self._translate(real, flip=draws.flip)
        fake_b = translated[: len(real_a)]
        loss_d = update(self._discriminator_loss(fake_b.detach(), real_b), self._optimiser_d)

        self.discriminator.requires_grad_(False)
        loss_gan = self.config.lambda_gan * lsgan(self.discriminator(fake_b), real=True)
        queries = self.generator.encode(translated)
        if draws.flip:
            queries = [query.flip(-1) for query in queries]
        loss_nce = self._nce_terms(queries, keys, draws)
        loss_g = loss_gan + torch.stack(loss_nce).mean()
        update(loss_g, self._optimiser_g, self._optimiser_f)
        self.discriminator.requires_grad_(True)

        names = ("loss_nce", "loss_nce_identity")
        nce = {name: float(term.detach()) for name, term in zip(names, loss_nce, strict=False)}
        return {"loss_d": loss_d, "loss_gan": float(loss_gan.detach()), **nce}

    def _translate(self, real: Tensor, *, flip: bool) -> tuple[Tensor, list[Tensor]]:
        """G's output, and the key features of the unflipped images, without gradient."""
        if flip:
            with torch.no_grad():
                keys = self.generator.encode(real)
            return self.generator(real.flip(-1)), keys
        # G does not change before the keys are used: its own pass already holds them.
        translated, taps = self.generator.translate(real)
        return translated, [tap.detach() for tap in taps]

    def _discriminator_loss(self, fake_b: Tensor, real_b: Tensor) -> Tensor:
        fake = lsgan(self.discriminator(fake_b), real=False)
        real = lsgan(self.discriminator(real_b), real=True)
        return (fake + real) / 2

    def _nce_terms(
        self, queries: Sequence[Tensor], keys: Sequence[Tensor], draws: Draws
    ) -> list[Tensor]:
        """PatchNCE of A and, with the identity term, of B: each at positions of its own."""
        positions = [draws.positions_a]
        if self.config.nce_identity:
            positions.append(draws.positions_b)
        domains = len(positions)
        queries_of = zip(*(query.chunk(domains) for query in queries), strict=True)
        keys_of = zip(*(key.chunk(domains) for key in keys), strict=True)
        return [
            self._nce(query, key, at)
            for query, key, at in zip(queries_of, keys_of, positions, strict=True)
        ]

    def _nce(
        self, queries: Sequence[Tensor], keys: Sequence[Tensor], positions: Sequence[Tensor]
    ) -> Tensor:
        with torch.no_grad():
            embedded_keys = self.projector(keys, positions)
        pairs = zip(self.projector(queries, positions), embedded_keys, strict=True)
        per_tap = [patch_nce(query, key, self.config.temperature).mean() for query, key in pairs]
        return self.config.lambda_nce * torch.stack(per_tap).mean()


def train_style(
    source: Domain, target: Domain, config: StyleFilterConfig, report: Report
) -> Generator:
    """Train theta_style, target -> source, on the images of both training splits."""
    style, device = config.style, resolve(config.device)
    sections_a, sections_b = target.training_sections(), source.training_sections()
    rng = random_stream(config.seed, "style")
    with seeded_weights(config.seed):
        cut = Cut(style, device)
    schedule = Schedule.of(style, max(len(sections_a), len(sections_b)))
    passes = shuffled_passes(sections_a, rng)
    counter = count(1)

    def step() -> Mapping[str, float]:
        batch_a = list(islice(passes, style.batch_size))
        batch_b = [sections_b[i] for i in rng.integers(len(sections_b), size=style.batch_size)]
        real_a = _images(target, batch_a, style.crop_px, rng).to(device)
        real_b = _images(source, batch_b, style.crop_px, rng).to(device)
        cut.set_rate(schedule.factor(next(counter)))
        return cut.step(real_a, real_b, cut.draw((style.crop_px, style.crop_px), rng))

    train("style", schedule.steps, step, report=report)
    return cut.generator.eval()


@dataclass(frozen=True)
class Schedule:
    """Full learning rate for ``constant`` periods, then linear decay over ``decay`` periods.

    A period is an epoch of ``period_steps`` steps, or one step where the config counts in steps.
    """

    constant: int
    decay: int
    period_steps: int

    @classmethod
    def of(cls, config: StyleConfig, num_sections: int) -> Self:
        """An epoch is one pass over the larger domain; an incomplete last batch is dropped."""
        if config.steps is not None:
            return cls(config.steps - config.steps // 2, config.steps // 2, 1)
        per_epoch = max(1, num_sections // config.batch_size)
        return cls(config.epochs_constant, config.epochs_decay, per_epoch)

    @property
    def steps(self) -> int:
        return (self.constant + self.decay) * self.period_steps

    def factor(self, step: int) -> float:
        """Of the learning rate at ``step`` (from 1); the last period still has 1 / (decay + 1)."""
        period = (step - 1) // self.period_steps + 1
        return 1 - max(0, period - self.constant) / (self.decay + 1)


def _images(
    domain: Domain, sections: Sequence[Section], side: int, rng: np.random.Generator
) -> Tensor:
    crops = [style_image(domain, section, side, rng) for section in sections]
    return torch.from_numpy(np.stack(crops)[:, None])
