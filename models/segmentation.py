"""Step 2 of StyleFilter: the U-Net, supervised on the source (Eq. 1)."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.checkpoint import load_segmenter
from models.config.stages import PretrainConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Domain
from models.data.samples import SourceBatch, parts, source_batch
from models.data.sampling import Sample, Sampler
from models.inference import Style, segment
from models.losses import cross_entropy
from models.networks.grey import to_network
from models.networks.unet import UNet
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

    def batch(step: int) -> SourceBatch:
        return source_batch(source, own_samples(sampler, step, stage.batch_size), stage)

    def step(_: int, batch: SourceBatch) -> Mapping[str, float]:
        segmenter.train()
        # Of the whole batch, so that the gradient does not depend on the number of parts.
        num_known = pixels_of_all(batch.masks != IGNORE, device)
        losses = (
            supervised_loss(segmenter, part, stage, num_known)
            for part in parts(batch, stage.accumulate)
        )
        return {"loss": sum(update(losses, optimiser))}

    length = Lengths.of(stage, len(sections), num_processes=num_processes())
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
    segmenter: UNet, batch: SourceBatch, config: PretrainConfig, num_known: Tensor
) -> Tensor:
    """Return CE(x_s, m_s) of Eq. 1, as (): the sum over crops, divided by ``num_known`` pixels."""
    device = next(segmenter.parameters()).device
    with autocast(device, config.precision):
        logits = segmenter(as_input(batch.images, device))
    return cross_entropy(logits, to_device(batch.masks, device), num_known)


def pixels_of_all(known: NDArray[np.bool_], device: torch.device) -> Tensor:
    """Count the True pixels of a batch, as (): the mean of this number over the processes."""
    return mean_count(torch.as_tensor(np.count_nonzero(known), device=device))


def own_samples(sampler: Sampler, step: int, size: int) -> list[Sample]:
    """Return the samples of a step's batch that this process computes."""
    return sampler.batch(step, size, part=rank(), parts=num_processes())


def validate(
    segmenter: UNet, domain: Domain, config: PretrainConfig, style: Style = lambda image: image
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


def adamw(segmenter: UNet, config: PretrainConfig) -> torch.optim.Optimizer:
    """Return AdamW, the paper's optimiser, at a constant learning rate."""
    return torch.optim.AdamW(
        segmenter.parameters(),
        lr=config.learning_rate,
        betas=_BETAS,
        weight_decay=config.weight_decay,
    )


def as_input(images: NDArray[np.float32], device: torch.device) -> Tensor:
    """Return images (B, 1, H, W) in [0, 1] as the U-Net's input in [-1, 1], on ``device``."""
    return to_device(to_network(images), device)
