"""Runs of Paul et al. for tests: domains with labelled halves, and what each update was given."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.baselines import adversaries, weak_labels
from models.baselines.weak_labels import adapt_weak_labels
from models.config.baselines import WeakLabelsConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain, Tile
from models.data.stylised import StylisedDomain
from models.networks.unet import UNet
from models.training.loop import Run, update
from models.training.progress import Progress
from tests.models.domains import A, P, U, squares, write_domain
from tests.models.stage_process import inverted, tiny
from tests.models.training_steps import GROUP, STILL, untrained

WITHOUT = {"weight_class_alignment": 0.0, "weight_output_alignment": 0.0}
LABELS = [((P, A), (P, P)), ((P, P), (P, U)), ((U, U), (P, A))]
"""Of the left and the right half of each section; two more would be given to the same halves."""
Domains = tuple[Domain, StylisedDomain]


def whole_sections(
    segmenter: Mapping[str, str] = GROUP, weak: Mapping[str, Any] | None = None, **changes: Any
) -> StyleFilterConfig:
    stage = {"crop_px": 48, "batch_size": 3, "augmentation": STILL, "select_on": "last"}
    config = tiny({**stage, "steps": 1, **changes}, segmenter)
    ours = {"dropout": 0.0, "discriminator_filters": 4, "clip_norm": 1e3, **(weak or {})}
    return config.model_copy(update={"weak_labels": WeakLabelsConfig(**ours)})


def domains_of(folder: Path, labels: Any = LABELS) -> Domains:
    tiles = [
        Tile(section, 0, half % 2 * 24, 48, 24, of_half)
        for section, halves in enumerate(labels)
        for half, of_half in enumerate(halves)
    ]
    pairs = {
        bright: [squares(48, seed + 10 * bright, bright=bright) for seed in range(4)]
        for bright in (True, False)
    }
    splits: Any = ["train", "train", "train", "val"]
    source = write_domain(
        folder / "source.zarr", *zip(*pairs[True], strict=True), splits, digest="source"
    )
    target = write_domain(
        folder / "target.zarr", *zip(*pairs[False], strict=True), splits, tiles, digest="target"
    )
    return source, inverted(target, folder)


def adapted(
    config: StyleFilterConfig, domains: Domains, start: UNet | None = None
) -> tuple[UNet, list[Progress]]:
    reports: list[Progress] = []
    segmenter = adapt_weak_labels(start or untrained(config), *domains, config, Run(reports.append))
    return segmenter, reports


def losses_of(report: Progress) -> dict[str, float]:
    return {name: value for name, value in report.values.items() if "loss" in name}


@dataclass
class Step:
    """What each update of a run was given: the gradients of its weights, before clipping."""

    gradients: list[list[Tensor]] = field(default_factory=list)
    clip_norms: list[float] = field(default_factory=list)


@contextmanager
def spying() -> Iterator[Step]:
    step = Step()

    def updating(losses: Any, optimiser: torch.optim.Optimizer, **clipped: float) -> list[float]:
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        before = [weight.detach().clone() for weight in weights]
        values = update(losses, optimiser, **clipped)
        assert not all(torch.equal(w, b) for w, b in zip(weights, before, strict=True))
        step.clip_norms.append(clipped.get("clip_norm", math.inf))
        step.gradients.append([w.grad.clone() for w in weights])
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weak_labels, "update", updating)
        patch.setattr(adversaries, "update", updating)
        yield step
