"""Step 2 of StyleFilter: the U-Net, supervised on the source (Eq. 1)."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.checkpoint import load_segmenter
from models.config.stages import PretrainConfig, SegmenterTrainingConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Domain
from models.data.samples import SourceBatch, parts, source_batch
from models.data.sampling import Sample, Sampler
from models.inference import Style, segment
from models.losses import cross_entropy, overlap
from models.networks.grey import to_network
from models.networks.statistics import statistics_kept
from models.networks.unet import UNet
from models.rare_dice import RareDice
from models.scores import Evaluation, confusion_matrix
from models.training import identity, preview
from models.training.device import resolve
from models.training.lengths import Lengths
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
from models.training.parallel import mean_count, num_processes, rank

_BETAS = (0.9, 0.999)  # the paper's "momentum term of 0.9"


def pretrain(
    source: Domain,
    config: StyleFilterConfig,
    run: Run,
) -> UNet:
    """Train theta_seg on the source (Eq. 1), and return it in eval mode.

    The weights with the best DICE on the source's validation masks are kept. Without such masks the
    last weights are kept, and the log says so.

    Raises:
        ValueError: no training section has a mask, (as DeviceUnavailable) the machine lacks the
            device or its precision, or (as NonFiniteLoss) a loss is not finite.
    """
    stage = config.pretrain
    device = resolve(config.device, stage.precision)
    this = identity.of_pretraining(source, config)
    if finished := run.finished("pretrain", this):
        return load_segmenter(finished, device)[0]
    sections = source.training_sections(masked=True)
    sampler = Sampler(sections, config.seed, "pretrain", "source")
    with seeded_weights(config.seed):
        segmenter = UNet(source.num_classes, config.segmenter).to(device)
    optimiser = adamw(segmenter, stage)
    rare = RareDice.of(source, stage.dice_weight, device)
    length = Lengths.of(stage, len(sections), num_processes=num_processes())

    def batch(step: int) -> SourceBatch:
        return source_batch(source, own_samples(sampler, step, stage.batch_size), stage)

    def step(number: int, batch: SourceBatch) -> Mapping[str, float]:
        set_rate(optimiser, stage.learning_rate * length.schedule.factor(number))
        segmenter.train()
        # Of the whole batch, so that the gradient does not depend on the number of parts.
        num_known = pixels_of_all(batch.masks != IGNORE, device)
        in_parts = parts(batch, stage.accumulate)
        dice = None if rare is None else _of_parts(rare, segmenter, in_parts, stage)
        losses = (supervised_loss(segmenter, part, stage, num_known, dice) for part in in_parts)
        return {"loss": sum(update(losses, optimiser))}

    task = Task(
        stage="pretrain",
        identity=this,
        steps=length.steps,
        modules={"segmenter": segmenter},
        optimisers={"segmenter": optimiser},
        batch=batch,
        step=step,
        keep=KeepBest(segmenter, lambda: validate(segmenter, source, stage), length.interval),
        picture=lambda: preview.segmentation(segmenter, source, stage.crop_px),
    )
    train(task, run)
    return segmenter.eval()


def supervised_loss(
    segmenter: UNet,
    batch: SourceBatch,
    config: SegmenterTrainingConfig,
    num_known: Tensor,
    rare: RareDice | None = None,
) -> Tensor:
    """Return CE(x_s, m_s) of Eq. 1, as (): the sum over crops, divided by ``num_known`` pixels.

    ``rare`` adds its loss of the rare classes.
    """
    logits, masks = _segmented(segmenter, batch, config)
    loss = cross_entropy(logits, masks, num_known)
    return loss if rare is None else loss + rare.loss(logits, masks)


def _segmented(
    segmenter: UNet, batch: SourceBatch, config: SegmenterTrainingConfig
) -> tuple[Tensor, Tensor]:
    """Return the logits (B, C, S, S) of a batch, and its masks, int64 (B, S, S)."""
    device = next(segmenter.parameters()).device
    with autocast(device, config.precision):
        logits: Tensor = segmenter(as_input(batch.images, device))
    return logits, to_device(batch.masks, device)


def _of_parts(
    rare: RareDice, segmenter: UNet, in_parts: Sequence[SourceBatch], config: PretrainConfig
) -> RareDice:
    """Return the loss of rare classes for each part of a batch.

    Soft Dice is no sum over parts, so several parts are segmented once more, without a gradient,
    to know the overlap of the whole batch first.
    """
    if len(in_parts) == 1:
        return rare
    with torch.no_grad(), statistics_kept(segmenter):
        overlaps = [overlap(*_segmented(segmenter, part, config)) for part in in_parts]
    return rare.of_parts(overlaps)


def pixels_of_all(known: NDArray[np.bool_], device: torch.device) -> Tensor:
    """Count the True pixels of a batch, as (): the mean of this number over the processes."""
    return mean_count(torch.as_tensor(np.count_nonzero(known), device=device))


def own_samples(sampler: Sampler, step: int, size: int) -> list[Sample]:
    """Return the samples of a step's batch that this process computes."""
    return sampler.batch(step, size, part=rank(), parts=num_processes())


def validate(
    segmenter: UNet,
    domain: Domain,
    config: SegmenterTrainingConfig,
    style: Style = lambda image: image,
) -> Mapping[str, float]:
    """Return ``dice/<class>`` and ``dice/mean``, in [0, 1], on a domain's validation masks.

    Images and masks have the working pixel size; ``style`` redraws the images before they are
    segmented. Without validation masks the result is empty. ``segmenter`` is left in eval mode.
    """
    segmenter.eval()
    pooled = np.zeros((domain.num_classes, domain.num_classes), dtype=np.int64)
    for section in domain.split("val", masked=True):
        image = style(domain.image(section))
        prediction = segment(segmenter, image, config.crop_px).argmax(axis=0)
        # Pooled over pixels, as the test is: small sections must not weigh more.
        pooled += confusion_matrix(
            domain.mask(section), prediction.astype(np.uint8), domain.num_classes
        )
    return Evaluation.of(domain.info.class_names, pooled).values()


def adamw(segmenter: UNet, config: SegmenterTrainingConfig) -> torch.optim.Optimizer:
    """Return AdamW, the paper's optimiser, at the full learning rate."""
    return torch.optim.AdamW(
        segmenter.parameters(),
        lr=config.learning_rate,
        betas=_BETAS,
        weight_decay=config.weight_decay,
    )


def as_input(images: NDArray[np.float32], device: torch.device) -> Tensor:
    """Return images (B, 1, H, W) in [0, 1] as the U-Net's input in [-1, 1], on ``device``."""
    return to_device(to_network(images), device)
