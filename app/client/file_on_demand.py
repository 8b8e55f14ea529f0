"""A file of this computer that is open only while it is sent."""

import os
from pathlib import Path
from typing import BinaryIO


class FileOnDemand:
    """Opens a file only while it is sent, so that one file of many is open at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: BinaryIO | None = None

    def tell(self) -> int:
        return 0 if self._stream is None else self._stream.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to the start, or only return where the end is. httpx needs nothing else."""
        if whence == os.SEEK_END:
            return self._path.stat().st_size
        self.close()
        return offset

    def read(self, size: int = -1) -> bytes:
        if self._stream is None:
            self._stream = self._path.open("rb")
        data = self._stream.read(size)
        if not data:
            self.close()
        return data

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
