"""The identity of a stage: a digest of all that decides its result.

That is its data, its config and the version of the method. Two stages of one identity would train
the same network, so the second takes the network of the first. The device is no part of the
identity: the same steps on another device differ by rounding only.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from models.config.stages import AdaptationConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain
from models.metadata import METHOD_VERSION
from models.training.parallel import num_processes

FROZEN_LABELER: Mapping[str, object] = {"labels_with": "stored statistics"}
"""An extra fact about StyleFilter with frozen weights that make the pseudo-labels.

These weights label with their stored statistics, and did not when version 5 began. The fact tells
their results from earlier ones, without a new version, which would affect every other stage.
"""


def of_style(
    source: Domain, target: Domain, config: StyleFilterConfig, judge: nn.Module | None
) -> str:
    """Identify theta_style by both domains' images and splits, its training and its choice."""
    chosen = config.style.select_on != "last"
    facts: dict[str, object] = {
        "style": config.style.deciding(),
        "data": [_data(source), _data(target)],
        "judge": of_weights(judge) if chosen and judge is not None else None,
        "labels": None,
    }
    if config.style.select_on == "labels":
        # Results of the rule before, which trusted confidence, are not taken over.
        facts |= {"labels": _labels(target), "labels choose by": "probability"}
    return _digest(config, facts)


def of_pretraining(source: Domain, config: StyleFilterConfig) -> str:
    """Identify the source-only theta_seg by the source and its training."""
    return _digest(
        config,
        {
            "segmenter": config.segmenter.deciding(),
            "pretrain": config.pretrain.deciding(),
            "data": [_data(source)],
        },
    )


@dataclass(frozen=True)
class MethodFacts:
    """The facts that decide an adaptation beside ``config.adaptation`` and the data.

    ``labels`` tells whether image-level labels are among them. ``settings`` are the method's own.
    ``unused`` names the fields of ``config.adaptation`` that the method does not read.
    """

    labels: bool
    settings: Mapping[str, object] = field(default_factory=dict)
    unused: Collection[str] = ()


def of_adaptation(
    source_only: nn.Module,
    source: Domain,
    target: Domain,
    config: StyleFilterConfig,
    method: MethodFacts,
) -> str:
    """Identify the adapted theta_seg, also by the weights it starts from and by labels it uses.

    ``target`` is the stylised domain, whose digest stands for the generator as well.
    """
    # Fields that the method does not read must not tell two equal trainings apart.
    defaults = AdaptationConfig()
    read = config.adaptation.model_copy(
        update={name: getattr(defaults, name) for name in method.unused}
    )
    return _digest(
        config,
        {
            "adaptation": read.deciding(),
            "segmenter": of_weights(source_only),
            "data": [_data(source), _data(target)],
            "labels": _labels(target) if method.labels else None,
            **method.settings,
        },
    )


def of_weights(network: nn.Module) -> str:
    """Identify a network by all its weights and statistics."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        # As bytes: numpy has no bfloat16.
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _data(domain: Domain) -> list[object]:
    # With their index: a stylised domain lists only some sections.
    splits = [[section.index, section.split] for section in domain.sections]
    return [domain.info.digest, splits, domain.info.intensity_window, domain.working_nm]


def _labels(target: Domain) -> list[object]:
    training = {section.index for section in target.split("train")}
    return [
        [tile.section, tile.y0, tile.x0, tile.height, tile.width, *tile.labels]
        for tile in target.tiles
        if tile.section in training
    ]


def _digest(config: StyleFilterConfig, facts: Mapping[str, object]) -> str:
    shared = {"version": METHOD_VERSION, "seed": config.seed, "processes": num_processes()}
    text = json.dumps({**shared, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
