"""Give a GPU to one trainer at a time, by a lock on a file.

The kernel lets the lock go when its holders end. The trainer inherits it from its worker, so a GPU
is not free before both are gone. Workers of one user see each other's locks if they share the
folder for temporary files. Workers in containers do not share it: give each GPUs of its own.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path


def visible(number: int, devices: Path = Path("/dev")) -> list[str]:
    """Return the names of the first ``number`` GPUs that this process may use; [] without any."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        names = [name.strip() for name in listed.split(",")]
    else:
        names = [path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*")]
        names.sort(key=int)
    return [name for name in names if name][:number]


@contextmanager
def held(gpus: Sequence[str], folder: Path | None = None) -> Iterator[tuple[int, ...] | None]:
    """Lock these GPUs, and yield open files to pass on; None if another process holds a GPU."""
    with ExitStack() as stack:
        files = []
        # In one order: of two workers that want the same GPUs, one gets all of them.
        for name in sorted(gpus):
            path = (
                folder or Path(tempfile.gettempdir())
            ) / f"stylefilter-{os.getuid()}-gpu-{name}.lock"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, file)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            files.append(file)
        yield tuple(files)
