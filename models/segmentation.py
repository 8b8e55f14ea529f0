"""Step 2 of StyleFilter: the U-Net, supervised on the source (Eq. 1)."""

from collections.abc import Mapping
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.config import PretrainConfig, StyleFilterConfig
from models.data.domain import Domain
from models.data.samples import shuffled_passes, source_batch
from models.device import resolve
from models.inference import segment
from models.losses import cross_entropy
from models.networks.unet import UNet
from models.progress import Report
from models.scores import Evaluation, confusion_matrix
from models.training import KeepBest, random_stream, seeded_weights, steps_of, train, update

_BETAS = (0.9, 0.999)  # the paper's "momentum term of 0.9"


def pretrain(source: Domain, config: StyleFilterConfig, report: Report) -> UNet:
    """Train theta_seg on the source; the weights with the best DICE on its validation masks.

    Without such masks the last weights are kept, and the log says so.
    """
    stage, device = config.pretrain, resolve(config.device)
    sections = source.training_sections(masked=True)
    with seeded_weights(config.seed):
        segmenter = UNet(source.num_classes, config.segmenter).to(device)
    optimiser = adamw(segmenter, stage)
    rng = random_stream(config.seed, "pretrain")
    passes = shuffled_passes(sections, rng)

    def step() -> Mapping[str, float]:
        batch = source_batch(source, list(islice(passes, stage.batch_size)), stage, rng)
        segmenter.train()
        logits = segmenter(as_input(batch.images, device))
        loss = cross_entropy(logits, torch.from_numpy(batch.masks).to(device))
        return {"loss": update(loss, optimiser)}

    steps, interval = lengths(stage, len(sections))
    keep = KeepBest(segmenter, lambda: validate(segmenter, source), interval)
    train("pretrain", steps, step, report=report, keep=keep)
    return segmenter.eval()


def validate(segmenter: UNet, domain: Domain) -> Mapping[str, float]:
    """``dice/...`` on the validation masks at the working pixel size; empty without masks."""
    segmenter.eval()
    pooled = np.zeros((domain.num_classes, domain.num_classes), dtype=np.int64)
    for section in domain.split("val", masked=True):
        prediction = segment(segmenter, domain.image(section)).argmax(axis=0).astype(np.uint8)
        pooled += confusion_matrix(domain.mask(section), prediction, domain.num_classes)
    return Evaluation.of(domain.info.class_names, pooled).values()


def adamw(segmenter: UNet, config: PretrainConfig) -> torch.optim.Optimizer:
    """The paper's optimiser, at a constant learning rate."""
    return torch.optim.AdamW(
        segmenter.parameters(),
        lr=config.learning_rate,
        betas=_BETAS,
        weight_decay=config.weight_decay,
    )


def lengths(config: PretrainConfig, num_sections: int) -> tuple[int, int]:
    """Steps of a stage, and between validations; an epoch is one pass over the source."""
    per_epoch = -(-num_sections // config.batch_size)
    return (
        steps_of(config.steps, config.epochs, per_epoch),
        steps_of(config.validate_every_steps, config.validate_every_epochs, per_epoch),
    )


def as_input(images: NDArray[np.float32], device: torch.device) -> Tensor:
    """Images (B, 1, H, W) in [0, 1] as the U-Net's input in [-1, 1]."""
    return torch.from_numpy(images * 2 - 1).to(device)
