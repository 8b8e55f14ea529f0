"""Lanes: what a job needs of a worker, so that a worker takes only what it can run."""

from enum import StrEnum


class Lane(StrEnum):
    """A worker serves some lanes, and its broker has a queue for each."""

    GPU_TRAIN = "gpu-train"
    GPU_INFER = "gpu-infer"
    CPU = "cpu"

    @property
    def needs_gpu(self) -> bool:
        return self != Lane.CPU
