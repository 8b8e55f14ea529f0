"""Places at a URL: a bucket of S3 or of a server that speaks its language, or a web server.

The package obstore, of the extra ``remote``, reads them. It takes credentials, region and address
of the S3 server from the environment alone, under the names that all S3 programs use:
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

from models.data.readers.places import (
    DeniedError,
    Listing,
    Place,
    PlaceError,
    joined,
    spooled,
)

if TYPE_CHECKING:
    from obstore.store import ClientConfig, HTTPStore, RetryConfig, S3Store

R = TypeVar("R")
SCHEMES = ("s3", "https", "http")
_PART_BYTES, _MAX_FILE_BYTES = 32 << 20, 64 << 30

_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SKIP_SIGNATURE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_CLIENT: "ClientConfig" = {
    "allow_http": True,  # servers of a laboratory's own network often have no certificate
    "connect_timeout": timedelta(seconds=10),
    "timeout": timedelta(seconds=120),
}
_RETRIES: "RetryConfig" = {"max_retries": 4, "retry_timeout": timedelta(seconds=180)}
_REASONS = (
    ("NoSuchBucket", "there is no such bucket: check its name"),
    ("InvalidAccessKeyId", "the server does not know the AWS_ACCESS_KEY_ID of this program"),
    ("SignatureDoesNotMatch", "the AWS_SECRET_ACCESS_KEY of this program is wrong"),
    ("redirect", "the bucket lies in another region: set AWS_REGION to the bucket's"),
    ("dns error", "there is no server of this name: check the address and the network"),
    ("connect", "no connection to the server: check the address and the network"),
    ("TimedOut", "the server did not answer in time: try again later"),
    ("416 Range", "it is shorter than other files say, so it was copied in part: copy it again"),
)
"""Words in an error of obstore, and what is wrong then."""


def is_url(place: str) -> bool:
    """Return whether a text is a URL, of whatever kind, and no path of a folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place) is not None


def open_place(url: str) -> Place:
    """Open the folder at a URL: ``s3://bucket/key``, ``https://...`` or ``http://...``.

    Nothing is read yet, so a folder that does not exist is no error.

    Raises:
        PlaceError: the URL cannot be understood, or the package obstore is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.netloc:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise PlaceError(f"{url!r} is no address that is read: give one that begins with {known}")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise PlaceError(
            "the address holds a question mark, a # or an @: give a plain address; a password "
            "belongs into the environment of the program"
        )
    with _needing_obstore():
        from obstore.store import HTTPStore, S3Store
    store: S3Store | HTTPStore
    if parts.scheme == "s3":
        # Without this, obstore would first look for the credentials of a virtual machine.
        anonymous: dict[str, Any] = {"skip_signature": True}
        signed = any(os.environ.get(name) for name in _CREDENTIALS)
        store = S3Store(
            parts.netloc,
            client_options=_CLIENT,
            retry_config=_RETRIES,
            **({} if signed else anonymous),
        )
    else:
        store = HTTPStore.from_url(
            f"{parts.scheme}://{parts.netloc}", client_options=_CLIENT, retry_config=_RETRIES
        )
    return RemotePlace(store, joined(unquote(parts.path)), parts.scheme == "s3")


def open_public_bucket(bucket: str, *, region: str, endpoint: str | None = None) -> Place:
    """Open a bucket of S3 that anybody may read and list; the environment does not matter.

    ``endpoint`` is the address of another server than Amazon's.

    Raises:
        PlaceError: the package obstore is not installed.
    """
    with _needing_obstore():
        from obstore.store import S3Store
    store = S3Store(
        bucket,
        region=region,
        endpoint=endpoint or f"https://s3.{region}.amazonaws.com",
        virtual_hosted_style_request=False,
        skip_signature=True,
        client_options=_CLIENT,
        retry_config=_RETRIES,
    )
    return RemotePlace(store, "", lists=True)


@contextmanager
def _needing_obstore() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise PlaceError(
            "reading from URLs needs the package obstore: install this program with its extra "
            "'remote'"
        ) from error


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
            with self._in_words(key):
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
            with self._in_words(""):
                for batch in obstore.list(self._store, self._prefix or None, chunk_size=1000):
                    found.update(each["path"][cut:] for each in batch)
                    if len(found) > limit:
                        return None
        except DeniedError:
            return None
        return frozenset(found)

    def _read(self, key: str, get: Callable[[str], R]) -> R | None:
        with self._in_words(key):
            try:
                return get(joined(self._prefix, key))
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise PlaceError(f"cannot be read: {_REASONS[0][1]}") from error
                return None

    @contextmanager
    def _in_words(self, key: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except PlaceError:
            raise
        except (BaseError, FileNotFoundError, ValueError, OSError) as error:
            where = key or "its address"
            if (reason := _reason(error)) is not None:
                raise PlaceError(f"cannot be read at {where}: {reason}") from error
            if re.search(r"status code: 40[13]\b", str(error)):
                raise DeniedError(
                    f"cannot be read at {where}: the server denies it. Check what the credentials "
                    "in the environment of this program may read"
                ) from error
            told = str(error).partition("status code: ")[2] or str(error)
            said = told.partition("\n")[0][:200]
            raise PlaceError(f"cannot be read at {where}: {said}") from error


def _reason(error: Exception) -> str | None:
    """Return what is wrong in plain words, if the error is a known one."""
    text = repr(error).lower()
    return next((words for sign, words in _REASONS if sign.lower() in text), None)
