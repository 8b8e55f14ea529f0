"""Compare a job's needs with the memory and the disk there are; free of torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from models.capacity.estimate import Cause, Estimate
from models.config.stages import SegmenterTrainingConfig, StyleConfig
from models.config.stylefilter import StyleFilterConfig
from models.training.progress import Stage


@dataclass(frozen=True)
class Room:
    """The memory and the disk that a job may take; None if that is not known."""

    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True)
class Shortage:
    """A need that exceeds the room, in words, and the config field that matters most for it."""

    field: str
    message: str


class DoesNotFit(ValueError):
    """A job needs more memory or disk than there is."""


def shortages(estimate: Estimate, room: Room) -> list[Shortage]:
    """Return the needs that exceed the room: the hungriest stage of each memory, and the disk."""
    found = []
    main = max(estimate.stages, key=lambda stage: stage.memory_bytes)
    gpu = max(estimate.stages, key=lambda stage: stage.gpu_memory_bytes)
    for stage, needed, there, kind in (
        (main, main.memory_bytes, room.memory_bytes, "memory"),
        (gpu, gpu.gpu_memory_bytes, room.gpu_memory_bytes, "GPU memory"),
    ):
        if there is not None and needed > there:
            field, advice = _ADVICE[stage.cause][stage.stage]
            message = (
                f"stage {stage.stage} needs about {in_words(needed)} of {kind}, but there is only "
                f"{in_words(there)}: {advice}"
            )
            found.append(Shortage(field, message))
    if room.disk_bytes is not None and estimate.disk_bytes > room.disk_bytes:
        message = (
            f"the job needs up to {in_words(estimate.disk_bytes)} of disk, but only "
            f"{in_words(room.disk_bytes)} is free in the data folder: make room, lower "
            "base_filters, or raise pixel_size_factor"
        )
        found.append(Shortage("", message))
    return found


def check(estimate: Estimate, room: Room) -> None:
    """Refuse a job whose needs exceed the room.

    Raises:
        DoesNotFit: the message names each need, the room for it, and what to change.
    """
    if found := shortages(estimate, room):
        raise DoesNotFit("; ".join(shortage.message for shortage in found))


def in_less_memory(config: StyleFilterConfig, stage: str) -> tuple[StyleFilterConfig, str] | None:
    """Return the config with a training stage in about half the memory, and the change in words.

    The batch is computed in twice as many parts, which keeps its gradient (except for batch norm).
    If it cannot be divided, the crop gets half the side. None if neither is possible.
    """
    name = {"style": "style", "pretrain": "pretrain", "adapt": "adaptation"}.get(stage)
    if name is None:
        return None
    # The changes below keep the config valid: model_copy would not check it.
    old: StyleConfig | SegmenterTrainingConfig = getattr(config, name)
    # The generator needs a side that is a multiple of 4.
    parts, side = 2 * old.accumulate, old.crop_px // 2 // 4 * 4
    if old.batch_size % parts == 0:
        change: dict[str, int] = {"accumulate": parts}
        words = f"{name}.accumulate {old.accumulate} -> {parts}: the same batch in smaller parts"
    elif side >= max(32, config.segmenter.min_px if name != "style" else 0):
        change = {"crop_px": side}
        words = f"{name}.crop_px {old.crop_px} -> {side}: this changes the result"
    else:
        return None
    return config.model_copy(update={name: old.model_copy(update=change)}), words


def in_words(num_bytes: int) -> str:
    """Return a number of bytes in words, such as 0.72 GB."""
    return f"{num_bytes / 10**9:.2f} GB"


_LESS = "lower {0}.crop_px, {0}.batch_size or {1}.base_filters, or raise {0}.accumulate"
_COARSER = "raise pixel_size_factor, or lower {0}.base_filters"
_ADVICE: Mapping[Cause, Mapping[Stage, tuple[str, str]]] = {
    "training": {
        "style": ("style", _LESS.format("style", "style")),
        "pretrain": ("pretrain", _LESS.format("pretrain", "segmenter")),
        "adapt": ("adaptation", _LESS.format("adaptation", "segmenter")),
    },
    "images": {
        "pretrain": ("pixel_size_factor", _COARSER.format("segmenter")),
        "stylise": ("pixel_size_factor", _COARSER.format("style")),
        "adapt": ("pixel_size_factor", _COARSER.format("segmenter")),
        "evaluate": ("pixel_size_factor", _COARSER.format("segmenter")),
        "verdict": ("pixel_size_factor", _COARSER.format("segmenter")),
    },
}
"""The config field that matters most for a cause and a stage, and the advice."""
