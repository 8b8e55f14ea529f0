"""The state of a running stage on disk, so that a killed run goes on where it stopped.

Finished networks are kept by ``checkpoint.py``.
"""

import io
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import Any

import torch
from torch import Tensor

from models.data.files import PARTIAL_SUFFIX, written_aside
from models.training.progress import Stage

_FORMAT = 1

_ABANDONED_SECONDS = 600
"""A draft that has not grown for so long belongs to a killed process: saving never pauses."""

_DAMAGE = (OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError, zipfile.BadZipFile)
"""The exceptions that reading a damaged file was seen to raise."""


@dataclass(frozen=True)
class Best:
    """The best validated weights so far, and all scores they had."""

    by: float
    step: int
    scores: Mapping[str, float]
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class State:
    """The state of a stage after a step; the next steps depend on nothing else.

    ``values`` were reported of the step. ``identity`` is that of the stage (``identity.py``).
    ``others`` are the weights that other rules would keep.
    """

    identity: str
    step: int
    values: Mapping[str, float]
    modules: Mapping[str, Mapping[str, Tensor]]
    optimisers: Mapping[str, Mapping[str, Any]]
    best: Best | None
    others: Mapping[str, Best] = field(default_factory=dict)


class Checkpoints:
    """The saved states of a run's stages, each written at most every ``every_seconds``.

    ``folder`` may hold files of earlier attempts at the same run; the furthest state of a stage is
    loaded. ``attempt`` is a part of this attempt's file names, so that no two attempts write to one
    file.
    """

    def __init__(self, folder: Path, *, attempt: str = "0", every_seconds: float = 60) -> None:
        self._folder, self._attempt = folder, attempt
        self._every = every_seconds
        self._saved = monotonic()

    def within(self, name: str) -> "Checkpoints":
        """Return the saved states of a part of the run that has stages of its own."""
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return Checkpoints(folder, attempt=self._attempt, every_seconds=self._every)

    @property
    def due(self) -> bool:
        return monotonic() - self._saved >= self._every

    def load(self, stage: Stage, identity: str) -> State | None:
        """Return the furthest state of a stage with this identity that an attempt left, or None.

        A damaged file is passed over if another can be read.

        Raises:
            ValueError: a file is damaged and no other has such a state. To begin anew silently is
                not what the user of the run asked for.
        """
        self._sweep()
        states: list[State] = []
        damaged: list[str] = []
        for path in sorted(self._folder.glob(f"{stage}-*.pt")):
            try:
                content = _read(path)
                if (content["format"], content["identity"]) == (_FORMAT, identity):
                    states.append(_state(content))
            except _DAMAGE as error:
                damaged.append(f"{path}: {error}")
        if damaged and not states:
            raise ValueError(f"a checkpoint is damaged; delete it to begin anew: {damaged[0]}")
        return max(states, key=lambda state: state.step, default=None)

    def save(self, stage: Stage, state: State) -> None:
        """Replace this attempt's saved state of a stage, as a whole or not at all."""
        # Not dataclasses.asdict: it would copy every tensor.
        best = None if state.best is None else vars(state.best)
        others = {name: vars(other) for name, other in state.others.items()}
        content = {"format": _FORMAT} | vars(state) | {"best": best, "others": others}
        serialised = io.BytesIO()  # torch's own error on a full disk is no OSError
        torch.save(content, serialised)
        path = self._folder / f"{stage}-{self._attempt}.pt"
        with written_aside(path, durable=True) as draft:
            draft.write_bytes(serialised.getbuffer())
        self._saved = monotonic()

    def _sweep(self) -> None:
        """Delete drafts that killed processes left, but none that another attempt is writing."""
        for path in self._folder.glob(f".*{PARTIAL_SUFFIX}"):
            with suppress(FileNotFoundError):  # it was renamed or swept meanwhile
                if time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()


def _read(path: Path) -> Any:
    """Return the content of a file; an altered byte, which torch would accept, is an error."""
    with zipfile.ZipFile(path) as archive:
        if altered := archive.testzip():
            raise ValueError(f"{altered} was altered")
    return torch.load(path, map_location="cpu", weights_only=True)


def _state(content: Mapping[str, Any]) -> State:
    fields = {name: value for name, value in content.items() if name != "format"}
    best = fields["best"]
    # States that earlier versions saved have no others.
    others = {name: Best(**other) for name, other in fields.get("others", {}).items()}
    return State(**(fields | {"best": None if best is None else Best(**best), "others": others}))
