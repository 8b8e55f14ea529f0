"""One GPU, one trainer: a lock on a file that the kernel lets go when its holders end.

The trainer inherits the lock from its worker, so a GPU is not free before both are gone. Workers of
one host see each other's locks where they share the folder for temporary files; in containers each
worker gets GPUs of its own.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path


def visible(number: int) -> list[str]:
    """Names of the first ``number`` GPUs that this process may use."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(n) for n in range(number)] if listed is None else listed.split(",")
    return [name.strip() for name in names if name.strip()][:number]


@contextmanager
def held(gpus: Sequence[str], folder: Path | None = None) -> Iterator[tuple[int, ...] | None]:
    """Lock these GPUs: open files to pass on; None where another holds one of them."""
    with ExitStack() as stack:
        files = []
        for name in sorted(gpus):
            path = (folder or Path(tempfile.gettempdir())) / f"stylefilter-gpu-{name}.lock"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            stack.callback(os.close, file)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            files.append(file)
        yield tuple(files)
