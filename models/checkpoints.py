"""The state of a running stage on disk, so that a killed run goes on where it was.

Not to be confused with ``checkpoint.py``, which keeps finished networks.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from models.progress import Stage

_FORMAT = 1


@dataclass(frozen=True)
class Best:
    """The best validated weights so far."""

    score: float
    step: int
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class State:
    """All that step ``step`` left; the next steps depend on nothing else."""

    step: int
    modules: Mapping[str, Mapping[str, Tensor]]
    optimisers: Mapping[str, Mapping[str, Any]]
    best: Best | None


class Checkpoints:
    """Saves the state of each stage of a run, at most every ``every_seconds``, and finds it again.

    ``folder`` may hold the files of earlier attempts at the same run: of a stage's states the
    furthest is loaded. ``attempt`` names the files of this one, so that attempts never write to one
    file. ``run`` identifies data, config and code; a state of another run is never loaded.
    """

    def __init__(
        self, folder: Path, run: str, *, attempt: str = "0", every_seconds: float = 60
    ) -> None:
        self._folder, self._run, self._attempt = folder, run, attempt
        self._every = every_seconds
        self._saved = monotonic()

    @property
    def due(self) -> bool:
        return monotonic() - self._saved >= self._every

    def load(self, stage: Stage) -> State | None:
        """The furthest state of a stage that an attempt left, or None.

        A file that cannot be read is passed over only if another can be: a damaged one alone is an
        error, for a run that silently begins anew is not what its user asked for.
        """
        states: list[State] = []
        damaged: list[str] = []
        for path in sorted(self._folder.glob(f"{stage}-*.pt")):
            try:
                content = torch.load(path, map_location="cpu", weights_only=True)
                if (content["format"], content["run"]) == (_FORMAT, self._run):
                    states.append(_state(content["state"]))
            except (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError) as error:
                damaged.append(f"{path}: {error}")
        if damaged and not states:
            raise ValueError(f"a checkpoint is damaged; delete it to begin anew: {damaged[0]}")
        return max(states, key=lambda state: state.step, default=None)

    def save(self, stage: Stage, state: State) -> None:
        """Write under another name, flush to the disk, then rename: never half a state."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".{uuid4().hex}"
        # Not dataclasses.asdict: it would copy every tensor.
        best = None if state.best is None else vars(state.best)
        content = {"format": _FORMAT, "run": self._run, "state": vars(state) | {"best": best}}
        try:
            with partial.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self._folder / f"{stage}-{self._attempt}.pt")
        finally:
            partial.unlink(missing_ok=True)
        self._saved = monotonic()


def _state(content: Mapping[str, Any]) -> State:
    best = content["best"]
    return State(
        step=content["step"],
        modules=content["modules"],
        optimisers=content["optimisers"],
        best=None if best is None else Best(**best),
    )
