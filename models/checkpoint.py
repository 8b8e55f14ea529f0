"""A trained network on disk: weights.safetensors, config.json and metrics.json in one folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from models.config.versions import ConfigUnusable
from models.data.files import written_aside
from models.metadata import ModelMeta
from models.networks.generator import Generator
from models.networks.unet import UNet

Module = TypeVar("Module", bound=nn.Module)

WEIGHTS, CONFIG, METRICS = "weights.safetensors", "config.json", "metrics.json"

_RESTORE = "copy it from a backup, or train the network again"


class CheckpointError(ValueError):
    """A folder does not hold the network that was asked for."""


def save_generator(
    folder: Path, generator: Generator, meta: ModelMeta, metrics: Mapping[str, float | str]
) -> None:
    """Write a style transfer model to ``folder``, with the scores of its training as ``metrics``.

    Raises:
        OSError: the folder holds something already, or the disk refuses.
    """
    assert meta.kind == "generator"
    _save(folder, generator, meta, metrics)


def save_segmenter(
    folder: Path, segmenter: UNet, meta: ModelMeta, metrics: Mapping[str, float | str]
) -> None:
    """Write a segmenter to ``folder``, with the scores of its training as ``metrics``.

    Raises:
        OSError: the folder holds something already, or the disk refuses.
    """
    assert meta.kind == "segmenter"
    _save(folder, segmenter, meta, metrics)


def load_metrics(folder: Path) -> Mapping[str, float | str]:
    """Read ``metrics.json``: the scores of a network's training, by name.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        metrics: Mapping[str, float | str] = json.loads((folder / METRICS).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder / METRICS} is missing or damaged ({error}): {_RESTORE}"
        ) from error
    return metrics


def load_generator(folder: Path, device: torch.device) -> tuple[Generator, ModelMeta]:
    """Read a style transfer model onto ``device``, in eval mode, and its metadata.

    Raises:
        CheckpointError: a file is missing or damaged, or the folder holds another kind of network.
    """
    meta = _load_meta(folder, "generator")
    style = meta.config.style
    generator = Generator(style.base_filters, style.num_blocks)
    return _with_weights(generator, folder).to(device).eval(), meta


def load_segmenter(folder: Path, device: torch.device) -> tuple[UNet, ModelMeta]:
    """Read a segmenter onto ``device``, in eval mode, and its metadata.

    Raises:
        CheckpointError: a file is missing or damaged, or the folder holds another kind of network.
    """
    meta = _load_meta(folder, "segmenter")
    segmenter = UNet(len(meta.class_names), meta.config.segmenter)
    return _with_weights(segmenter, folder).to(device).eval(), meta


def _save(
    folder: Path, module: nn.Module, meta: ModelMeta, metrics: Mapping[str, float | str]
) -> None:
    # safetensors takes contiguous tensors only; channels-last weights are not.
    weights = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    with written_aside(folder) as draft:
        draft.mkdir()
        # Not save_file: on a full disk it raises an error that is no OSError and has no errno.
        (draft / WEIGHTS).write_bytes(save(weights))
        (draft / CONFIG).write_text(meta.model_dump_json(indent=2) + "\n")
        (draft / METRICS).write_text(json.dumps(dict(metrics), indent=2) + "\n")


def _load_meta(folder: Path, kind: str) -> ModelMeta:
    try:
        meta = ModelMeta.read((folder / CONFIG).read_text())
    except OSError as error:
        raise CheckpointError(
            f"there is no trained model in {folder} ({error.strerror}): name a folder that "
            "Adapted.save or a job of the service wrote"
        ) from error
    # A ValueError too, but the file is not damaged.
    except ConfigUnusable as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG} is damaged ({error}): {_RESTORE}") from error
    if meta.kind != kind:
        raise CheckpointError(
            f"{folder} holds a {meta.kind}, not a {kind}: name the folder of a {kind}"
        )
    return meta


def _with_weights(module: Module, folder: Path) -> Module:
    try:
        # torch raises RuntimeError for tensors of other names or shapes.
        module.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder / WEIGHTS} is missing or damaged ({error}): {_RESTORE}"
        ) from error
    return module
