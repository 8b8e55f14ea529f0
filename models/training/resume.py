"""The state of a running stage on disk, so that a killed run goes on where it was.

Finished networks are kept by ``checkpoint.py``.
"""

import io
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import Any

import torch
from torch import Tensor

from models.files import PARTIAL_SUFFIX, written_aside
from models.training.progress import Stage

_FORMAT = 1

_ABANDONED_SECONDS = 600
"""A state that is being saved grows all the time: one that did not for so long never will."""

_DAMAGE = (OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError, zipfile.BadZipFile)
"""What reading a damaged file was seen to raise."""


@dataclass(frozen=True)
class Best:
    """The best validated weights so far, and all scores they had."""

    by: float
    step: int
    scores: Mapping[str, float]
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class State:
    """All that step ``step`` left, and what was reported of it; the next steps depend on no more.

    ``identity`` says which data, config and code these steps are of.
    """

    identity: str
    step: int
    values: Mapping[str, float]
    modules: Mapping[str, Mapping[str, Tensor]]
    optimisers: Mapping[str, Mapping[str, Any]]
    best: Best | None


class Checkpoints:
    """Saves the state of each stage of a run, at most every ``every_seconds``, and finds it again.

    ``folder`` may hold the files of earlier attempts at the same run: of a stage's states the
    furthest is loaded. ``attempt`` names the files of this one, so that attempts never write to one
    file.
    """

    def __init__(self, folder: Path, *, attempt: str = "0", every_seconds: float = 60) -> None:
        self._folder, self._attempt = folder, attempt
        self._every = every_seconds
        self._saved = monotonic()

    @property
    def due(self) -> bool:
        return monotonic() - self._saved >= self._every

    def load(self, stage: Stage, identity: str) -> State | None:
        """Return the furthest state of a stage with this identity that an attempt left, or None.

        A file that cannot be read is passed over only if another can be: a damaged one alone is an
        error, for a run that silently begins anew is not what its user asked for.
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
        """Write the state of a stage in place of this attempt's last; never half a state."""
        # Not dataclasses.asdict: it would copy every tensor.
        best = None if state.best is None else vars(state.best)
        content = {"format": _FORMAT} | vars(state) | {"best": best}
        serialised = io.BytesIO()  # torch's own error on a full disk is no OSError
        torch.save(content, serialised)
        path = self._folder / f"{stage}-{self._attempt}.pt"
        with written_aside(path, durable=True) as draft:
            draft.write_bytes(serialised.getbuffer())
        self._saved = monotonic()

    def _sweep(self) -> None:
        """Delete what saves that were killed left; never the save of another attempt under way."""
        for path in self._folder.glob(f".*{PARTIAL_SUFFIX}"):
            with suppress(FileNotFoundError):  # it was renamed or swept meanwhile
                if time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()


def _read(path: Path) -> Any:
    """Return what was saved; an altered byte of a tensor, which torch would take, is an error."""
    with zipfile.ZipFile(path) as archive:
        if altered := archive.testzip():
            raise ValueError(f"{altered} was altered")
    return torch.load(path, map_location="cpu", weights_only=True)


def _state(content: Mapping[str, Any]) -> State:
    fields = {name: value for name, value in content.items() if name != "format"}
    best = fields["best"]
    return State(**(fields | {"best": None if best is None else Best(**best)}))
