"""Files and folders that are written whole or not at all; free of torch."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

PARTIAL_SUFFIX = ".partial"
"""The end of the hidden name under which a draft is written; a killed process leaves its draft."""


@contextmanager
def written_aside(path: Path, *, into: Path | None = None, durable: bool = False) -> Iterator[Path]:
    """Yield a free path for a draft, a file or a folder, which is renamed to ``path`` at the end.

    Readers find the old content or the whole new one, never a part. If the block fails, the draft
    is removed and ``path`` stays as it was.

    Args:
        path: an existing file or empty folder is replaced; a folder that holds anything is not.
        into: the folder to write in, on the same disk as ``path``; beside ``path`` by default.
        durable: flush the file to the disk first, so that it survives a loss of power.

    Raises:
        OSError: ``path`` is a folder that holds something, or the disk refuses.
    """
    folder = path.parent if into is None else into
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{uuid4().hex}{PARTIAL_SUFFIX}"
    try:
        yield draft
        if durable:
            with draft.open("r+b") as file:
                os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        draft.unlink(missing_ok=True)
