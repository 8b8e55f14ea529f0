"""StyleFilter: section 2 of the paper, in its order."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from models.config import StyleFilterConfig
from models.data.domain import IGNORE, Domain
from models.data.samples import shuffled_passes, source_batch, target_batch
from models.data.stylised import StylisedDomain
from models.inference import stylise_domain
from models.losses import cross_entropy
from models.networks.generator import Generator
from models.networks.unet import UNet
from models.progress import Report
from models.pseudo_labels import pseudo_labels
from models.segmentation import adamw, as_input, lengths, pretrain, validate
from models.style_transfer import train_style
from models.training import KeepBest, random_stream, train, update


@dataclass(frozen=True)
class AdaptedModels:
    """What an adaptation leaves: theta_style, the source-only segmenter, and the adapted one."""

    style: Generator
    source_only: UNet
    adapted: UNet


def adapt(
    source: Domain, target: Domain, config: StyleFilterConfig, report: Report, workspace: Path
) -> AdaptedModels:
    """Adapt from ``source`` to ``target``; ``workspace`` takes the stylised target images."""
    check_pair(source, target)
    style = train_style(source, target, config, report)
    source_only = pretrain(source, config, report)
    stylised = stylise_domain(style, target, workspace / "stylised.zarr", report)
    adapted = adapt_segmenter(source_only, source, stylised, config, report)
    return AdaptedModels(style, source_only, adapted)


def adapt_segmenter(
    source_only: UNet,
    source: Domain,
    target: StylisedDomain,
    config: StyleFilterConfig,
    report: Report,
) -> UNet:
    """Train a copy of ``source_only`` with L_SF = CE(x_s, m_s) + CE(x_t, P_filter(x*_t, l_t)).

    The current weights label the target, in eval mode and without gradient. Source and target go
    through the network apart, so that neither changes the other's batch statistics. The weights
    with the best DICE on the target's validation masks are kept, else the last.
    """
    stage, segmenter = config.adaptation, copy.deepcopy(source_only)
    device = next(segmenter.parameters()).device
    optimiser, rng = adamw(segmenter, stage), random_stream(config.seed, "adapt")
    source_sections = source.training_sections(masked=True)
    source_passes = shuffled_passes(source_sections, rng)
    target_passes = shuffled_passes(target.training_sections(), rng)

    def step() -> Mapping[str, float]:
        x_s = source_batch(source, list(islice(source_passes, stage.batch_size)), stage, rng)
        x_t = target_batch(target, list(islice(target_passes, stage.batch_size)), stage, rng)
        with torch.no_grad():
            logits = segmenter.eval()(as_input(x_t.stylised, device))
        allowed = torch.from_numpy(x_t.allowed).to(device) if stage.label_filter else None
        labels = pseudo_labels(logits, allowed)
        labels[~torch.from_numpy(x_t.inside).to(device)] = IGNORE

        segmenter.train()
        masks = torch.from_numpy(x_s.masks).to(device)
        loss_source = cross_entropy(segmenter(as_input(x_s.images, device)), masks)
        loss_target = cross_entropy(segmenter(as_input(x_t.student, device)), labels)
        update(loss_source + loss_target, optimiser)
        return {"loss_source": loss_source.item(), "loss_target": loss_target.item()}

    steps, interval = lengths(stage, len(source_sections))
    keep = KeepBest(segmenter, lambda: validate(segmenter, target), interval)
    train("adapt", steps, step, report=report, keep=keep)
    return segmenter.eval()


def check_pair(source: Domain, target: Domain) -> None:
    """Refuse domains that do not share classes and working pixel size."""
    if source.info.class_names != target.info.class_names:
        raise ValueError(
            f"source classes {source.info.class_names} and target classes "
            f"{target.info.class_names} differ"
        )
    if source.working_nm != target.working_nm:
        raise ValueError(
            f"working pixel sizes differ: {source.working_nm} nm and {target.working_nm} nm"
        )
