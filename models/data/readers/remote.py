"""Places at a URL: folders of a bucket, or of a web server."""

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import urlsplit

from models.data.readers.places import (
    DeniedError,
    Listing,
    Place,
    PlaceError,
    joined,
    spooled,
)
from models.data.readers.remote_store import (
    CLIENT,
    NO_BUCKET,
    RETRIES,
    in_words,
    needing_obstore,
    open_store,
)

if TYPE_CHECKING:
    from obstore.store import HTTPStore, S3Store

R = TypeVar("R")
_PART_BYTES, _MAX_FILE_BYTES = 32 << 20, 64 << 30


def open_place(url: str) -> Place:
    """Open the folder at a URL: ``s3://bucket/key``, ``https://...`` or ``http://...``.

    Nothing is read yet, so a folder that does not exist is no error.

    Raises:
        PlaceError: the URL cannot be understood, or the package obstore is not installed.
    """
    store, prefix = open_store(url)
    return RemotePlace(store, prefix, lists=urlsplit(url).scheme == "s3")


def open_public_bucket(bucket: str, *, region: str, endpoint: str | None = None) -> Place:
    """Open a bucket of S3 that anybody may read and list; the environment does not matter.

    ``endpoint`` is the address of another server than Amazon's.

    Raises:
        PlaceError: the package obstore is not installed.
    """
    with needing_obstore():
        from obstore.store import S3Store
    store = S3Store(
        bucket,
        region=region,
        endpoint=endpoint or f"https://s3.{region}.amazonaws.com",
        virtual_hosted_style_request=False,
        skip_signature=True,
        client_options=CLIENT,
        retry_config=RETRIES,
    )
    return RemotePlace(store, "", lists=True)


class RemotePlace:
    """A folder of a bucket or a web server. Web servers do not list what they hold."""

    def __init__(self, store: "S3Store | HTTPStore", prefix: str, lists: bool) -> None:
        self._store, self._prefix, self._lists = store, prefix, lists

    @property
    def name(self) -> str:
        return self._prefix.rpartition("/")[2]

    def at(self, key: str) -> "RemotePlace":
        return RemotePlace(self._store, joined(self._prefix, key), self._lists)

    def open(self, key: str) -> BinaryIO | None:
        size = self.size(key)
        if size is None:
            return None
        if size > _MAX_FILE_BYTES:
            raise PlaceError(f"has a file {key} of more than {_MAX_FILE_BYTES >> 30} GiB")
        # Each part is tried again if the network fails.
        starts = range(0, size, _PART_BYTES)
        parts = (self.read_part(key, start, min(_PART_BYTES, size - start)) for start in starts)
        return spooled(part or b"" for part in parts)

    def read(self, key: str, limit: int) -> bytes | None:
        import obstore

        def whole(path: str) -> bytes:
            answer = obstore.get(self._store, path)
            if answer.meta["size"] > limit:
                raise PlaceError(f"has a file {key} of more than {limit} bytes")
            return bytes(answer.bytes())

        return self._read(key, whole)

    def read_part(self, key: str, start: int, length: int) -> bytes | None:
        import obstore

        def part(path: str) -> bytes:
            if start >= 0:
                return bytes(obstore.get_range(self._store, path, start=start, length=length))
            answer = obstore.get(self._store, path, options={"range": {"suffix": -start}})
            first, last = answer.range
            if last - first > -start:  # as of servers that know no parts
                raise PlaceError(f"lies on a server that sends no parts of files, as of {key}")
            return bytes(answer.bytes())[:length]

        return self._read(key, part)

    def size(self, key: str) -> int | None:
        import obstore

        return self._read(key, lambda path: obstore.head(self._store, path)["size"])

    def listing(self, key: str = "") -> Listing | None:
        import obstore

        if not self._lists:
            return None
        prefix = joined(self._prefix, key)
        try:
            with in_words(key):
                found = obstore.list_with_delimiter(self._store, prefix or None)
        except DeniedError:
            return None  # many buckets give what one knows by name, and list nothing
        folders = {path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]}
        files = {each["path"].rpartition("/")[2] for each in found["objects"]}
        return Listing(tuple(sorted(folders)), tuple(sorted(files)))

    def keys(self, limit: int) -> frozenset[str] | None:
        import obstore

        if not self._lists:
            return None
        found: set[str] = set()
        cut = len(self._prefix) + 1 if self._prefix else 0
        try:
            with in_words(""):
                for batch in obstore.list(self._store, self._prefix or None, chunk_size=1000):
                    found.update(each["path"][cut:] for each in batch)
                    if len(found) > limit:
                        return None
        except DeniedError:
            return None
        return frozenset(found)

    def _read(self, key: str, get: Callable[[str], R]) -> R | None:
        with in_words(key):
            try:
                return get(joined(self._prefix, key))
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise PlaceError(f"cannot be read: {NO_BUCKET}") from error
                return None
