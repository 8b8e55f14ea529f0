"""Step 1 of StyleFilter: CUT and FastCUT (Park et al. 2020), from the target to the source.

As in CUT, A is the domain to translate (the target) and B the style to imitate (the source). G is
the generator, D the discriminator, F the patch projector. A *tap* is a layer of the generator whose
output PatchNCE compares; its queries are features of the translation, its keys those of the image.
Legend: B batch, S side of the crop; images (B, 1, S, S) float32 in [-1, 1].
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.checkpoint import load_generator
from models.config.stages import StyleConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain
from models.data.samples import style_image
from models.data.sampling import Sample, Sampler, stream
from models.losses import lsgan, patch_nce
from models.networks.discriminator import Discriminator
from models.networks.generator import Generator, tap_sizes
from models.networks.patch_projector import PatchProjector, sample_positions
from models.networks.unet import UNet
from models.style_selection import Judge
from models.training import identity, preview
from models.training.device import resolve
from models.training.lengths import Schedule
from models.training.loop import (
    KeepBest,
    Run,
    Task,
    autocast,
    seeded_weights,
    set_rate,
    to_device,
    train,
    update,
)
from models.training.parallel import num_processes, rank

_BETAS = (0.5, 0.999)


@dataclass(frozen=True)
class Draws:
    """The random choices of one step: FastCUT's flip, and positions of A and of B at each tap.

    Positions are flat indices (P,) int64, one tensor per tap.
    """

    flip: bool
    positions_a: Sequence[Tensor]
    positions_b: Sequence[Tensor]


class Cut:
    """CUT's three networks, their optimisers, and the training step."""

    def __init__(self, config: StyleConfig, device: torch.device | None = None) -> None:
        self.config = config
        self.device = device or torch.device("cpu")
        self.generator = Generator(config.base_filters, config.num_blocks)
        self.projector = PatchProjector(self.generator.tap_channels, config.projector_width)
        self.discriminator = Discriminator(config.base_filters)
        self.modules: Mapping[str, nn.Module] = {
            "generator": self.generator,
            "projector": self.projector,
            "discriminator": self.discriminator,
        }
        self.optimisers = {
            name: torch.optim.Adam(
                network.to(self.device).parameters(),
                lr=config.learning_rate,
                betas=_BETAS,
                fused=True,  # one call for all parameters
            )
            for name, network in self.modules.items()
        }

    def set_rate(self, factor: float) -> None:
        """Scale the learning rate of all three optimisers."""
        for optimiser in self.optimisers.values():
            set_rate(optimiser, self.config.learning_rate * factor)

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> Draws:
        """Draw a step's choices for images of ``size`` (H, W)."""
        # In the reference's order: flip, A, B.
        flip = self.config.flip_equivariance and bool(rng.random() < 0.5)
        sizes, count = tap_sizes(*size), self.config.num_patches
        positions_a = sample_positions(sizes, count, rng)
        positions_b = sample_positions(sizes, count, rng) if self.config.nce_identity else []
        return Draws(flip, positions_a, positions_b)

    def step(self, real_a: Tensor, real_b: Tensor, draws: Draws) -> Mapping[str, float]:
        """Update D, then G and F together, and return the losses by name.

        ``real_a`` and ``real_b`` are (B, 1, H, W) float32 in [-1, 1].

        Raises:
            NonFiniteLoss: a loss or a gradient is not finite.
        """
        number = self.config.accumulate
        pairs = list(zip(real_a.chunk(number), real_b.chunk(number), strict=True))
        # D is updated after a translation and before G's loss on it. Only the last part's graph
        # waits for that; other parts are translated again, so memory holds the graph of one part.
        with torch.no_grad():
            fakes = [self._translate(*pair, draws).fake_b for pair in pairs[:-1]]
        last = self._translate(*pairs[-1], draws)
        fakes.append(last.fake_b.detach())
        losses_d = (
            self._discriminator_loss(fake, real) / number
            for fake, (_, real) in zip(fakes, pairs, strict=True)
        )
        loss_d = sum(update(losses_d, self.optimisers["discriminator"]))

        terms: list[list[float]] = []

        def losses_g() -> Iterator[Tensor]:
            for pair in reversed(pairs):
                translation = self._translate(*pair, draws) if terms else last
                loss_gan, losses_nce = self._generator_losses(translation, draws)
                terms.append([float(term.detach()) for term in (loss_gan, *losses_nce)])
                yield (loss_gan + torch.stack(losses_nce).mean()) / number

        # G's loss passes through D, which must not learn from it.
        self.discriminator.requires_grad_(False)
        update(losses_g(), self.optimisers["generator"], self.optimisers["projector"])
        self.discriminator.requires_grad_(True)
        names = ("loss_gan", "loss_nce", "loss_nce_identity")
        means = np.mean(terms, axis=0).tolist()  # two of them without the identity term
        return {"loss_d": loss_d, **dict(zip(names, means, strict=False))}

    def _translate(self, real_a: Tensor, real_b: Tensor, draws: Draws) -> "_Translation":
        real = torch.cat([real_a, real_b]) if self.config.nce_identity else real_a
        with autocast(self.device, self.config.precision):
            if draws.flip:
                with torch.no_grad():
                    keys = self.generator.encode(real)
                translated = self.generator(real.flip(-1))
            else:
                # G does not change before the keys are used: its own pass already holds them.
                translated, taps = self.generator.translate(real)
                keys = [tap.detach() for tap in taps]
        return _Translation(translated, translated[: len(real_a)], keys)

    def _discriminator_loss(self, fake_b: Tensor, real_b: Tensor) -> Tensor:
        with autocast(self.device, self.config.precision):
            # One pass is faster than two, and instance norm keeps the images apart.
            fake, real = self.discriminator(torch.cat([fake_b, real_b])).chunk(2)
        return (lsgan(fake, real=False) + lsgan(real, real=True)) / 2

    def _generator_losses(
        self, translation: "_Translation", draws: Draws
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the adversarial term, and PatchNCE of A and, with the identity term, of B."""
        with autocast(self.device, self.config.precision):
            scores = self.discriminator(translation.fake_b)
            queries = self.generator.encode(translation.images)
        if draws.flip:  # back again, to compare with keys of the unflipped image
            queries = [query.flip(-1) for query in queries]
        losses_nce = self._nce_terms(queries, translation.keys, draws)
        return self.config.lambda_gan * lsgan(scores, real=True), losses_nce

    def _nce_terms(
        self, queries: Sequence[Tensor], keys: Sequence[Tensor], draws: Draws
    ) -> list[Tensor]:
        """Return PatchNCE of A and, with the identity term, of B, each at its own positions."""
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
        # The translation is to follow the image, never the image the translation.
        with torch.no_grad():
            embedded_keys = self.projector(keys, positions)
        pairs = zip(self.projector(queries, positions), embedded_keys, strict=True)
        per_tap = [patch_nce(query, key, self.config.temperature).mean() for query, key in pairs]
        return self.config.lambda_nce * torch.stack(per_tap).mean()


@dataclass(frozen=True)
class _Translation:
    """G's output for A (and B), its part for A alone, and the keys of the unflipped images."""

    images: Tensor
    fake_b: Tensor
    keys: Sequence[Tensor]


def train_style(
    source: Domain,
    target: Domain,
    config: StyleFilterConfig,
    run: Run,
    source_only: UNet | None = None,
) -> Generator:
    """Train theta_style, from target to source, on both domains' training images.

    ``style.select_on`` chooses the generator that is kept, and is returned in eval mode. All
    choices but ``last`` score generators by the segmentations of ``source_only``.

    Raises:
        ValueError: a domain has no training sections, the choice needs ``source_only``, (as
            DeviceUnavailable) the machine lacks the device or its precision, or (as
            NonFiniteLoss) a loss is not finite.
    """
    style = config.style
    device = resolve(config.device, style.precision)
    this = identity.of_style(source, target, config, source_only)
    if finished := run.finished("style", this):
        return load_generator(finished, device)[0]
    sections_a, sections_b = target.training_sections(), source.training_sections()
    sampler_a = Sampler(sections_a, config.seed, "style", "target")
    sampler_b = Sampler(sections_b, config.seed, "style", "source")
    with seeded_weights(config.seed):
        cut = Cut(style, device)
    num_sections = max(len(sections_a), len(sections_b))
    schedule = Schedule.of(style, num_sections, num_processes=num_processes())

    def batch(step: int) -> StyleBatch:
        size, part, parts = style.batch_size, rank(), num_processes()
        batch_a = sampler_a.batch(step, size, part=part, parts=parts)
        batch_b = sampler_b.batch(step, size, part=part, parts=parts, replacement=True)  # as CUT
        # The step's own stream: processes that share a batch share its coin and positions.
        rng = stream(config.seed, "style", "step", step)
        return StyleBatch(
            _images(target, batch_a, style.crop_px),
            _images(source, batch_b, style.crop_px),
            cut.draw((style.crop_px, style.crop_px), rng),
        )

    def step(number: int, batch: StyleBatch) -> Mapping[str, float]:
        cut.set_rate(schedule.factor(number))
        real_a, real_b = to_device(batch.real_a, device), to_device(batch.real_b, device)
        return cut.step(real_a, real_b, batch.draws)

    task = Task(
        stage="style",
        identity=this,
        steps=schedule.steps,
        modules=cut.modules,
        optimisers=cut.optimisers,
        batch=batch,
        step=step,
        keep=_choice(cut.generator, source_only, target, config),
        picture=lambda: preview.translation(cut.generator, target),
    )
    train(task, run)
    return cut.generator.eval()


def _choice(
    generator: Generator, source_only: UNet | None, target: Domain, config: StyleFilterConfig
) -> KeepBest | None:
    """Return the rule that chooses the generator to keep; None if the last is kept."""
    style = config.style
    if style.select_on == "last":
        return None
    if source_only is None:
        raise ValueError(f"style.select_on {style.select_on} needs the source-only segmenter")
    judge = Judge(source_only, target, config.pretrain)
    by = {"target_val": "dice/mean", "labels": "label_probability"}[style.select_on]
    return KeepBest(generator, lambda: judge.scores(generator), style.validate_every_steps, by)


@dataclass(frozen=True)
class StyleBatch:
    """Crops of the target and the source, (B, 1, S, S) float32 in [-1, 1], and random choices."""

    real_a: NDArray[np.float32]
    real_b: NDArray[np.float32]
    draws: Draws


def _images(domain: Domain, samples: Sequence[Sample], side: int) -> NDArray[np.float32]:
    crops = [style_image(domain, sample.section, side, sample.rng) for sample in samples]
    return np.stack(crops)[:, None]
