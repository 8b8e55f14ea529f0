"""The Zarr store of a cell, which remembers what was read of it and what was not found."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from threading import Lock

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype

from models.data.readers.places import DeniedError, Place

_FILE_BYTES = 1 << 30
_METADATA_BYTES = 1 << 22


class WatchedStore(Store):
    """The files of a place, to be read by Zarr.

    ``not_found`` holds the keys since it was emptied last. ``lost`` is for those that should exist.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(self, place: Place, name: str) -> None:
        super().__init__(read_only=True)
        self.place = place
        self.name = name
        self.not_found: set[str] = set()
        self.lost: set[str] = set()
        self.num_requests = 0
        self.num_bytes = 0
        self._lock = Lock()

    def metadata(self, key: str) -> bytes | None:
        """Return a file of metadata; None if there is no such file.

        Raises:
            PlaceError: the place does not answer, or the file is too large.
        """
        try:
            return self.place.read(key, _METADATA_BYTES)
        except DeniedError:
            return None  # so buckets answer that do not tell what they lack

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        # In a thread, so that a web server is asked for several chunks at once.
        data = await asyncio.to_thread(self._read, key, byte_range)
        with self._lock:
            self.num_requests += 1
            self.num_bytes += len(data or b"")
            if data is None:
                self.not_found.add(key)
        return None if data is None else prototype.buffer.from_bytes(data)

    def _read(self, key: str, part: ByteRequest | None) -> bytes | None:
        try:
            match part:
                case RangeByteRequest(start, end):
                    return self.place.read_part(key, start, end - start)
                case SuffixByteRequest(suffix):
                    return self.place.read_part(key, -suffix, suffix)
                case OffsetByteRequest(offset):
                    return self.place.read_part(key, offset, _FILE_BYTES)
            return self.place.read(key, _FILE_BYTES)
        except DeniedError:
            return None

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        parts = (self.get(key, prototype, byte_range) for key, byte_range in key_ranges)
        return list(await asyncio.gather(*parts))

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self.place.size, key) is not None

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = Store.__hash__

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError(f"{self.name} is only read")

    async def delete(self, key: str) -> None:
        raise NotImplementedError(f"{self.name} is only read")

    def list(self) -> AsyncIterator[str]:
        raise NotImplementedError(f"{self.name} is not listed")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError(f"{self.name} is not listed")

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError(f"{self.name} is not listed")
