"""Opens the stores behind URLs: a bucket of S3 or of a server that speaks its language, or the web.

The package obstore, of the extra ``remote``, speaks to them. It takes credentials, region and
address of the S3 server from the environment alone, under the names that all S3 programs use:
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from models.data.readers.places import DeniedError, PlaceError, joined

if TYPE_CHECKING:
    from obstore.store import ClientConfig, HTTPStore, RetryConfig, S3Store

SCHEMES = ("s3", "https", "http")

_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SKIP_SIGNATURE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")
CLIENT: "ClientConfig" = {
    "allow_http": True,  # servers of a laboratory's own network often have no certificate
    "connect_timeout": timedelta(seconds=10),
    "timeout": timedelta(seconds=120),
}
RETRIES: "RetryConfig" = {"max_retries": 4, "retry_timeout": timedelta(seconds=180)}
NO_BUCKET = "there is no such bucket: check its name"
_REASONS = (
    ("NoSuchBucket", NO_BUCKET),
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


def open_store(url: str) -> "tuple[S3Store | HTTPStore, str]":
    """Open the store behind a URL, and return it with the path of the URL in it.

    Nothing is asked of the server yet, so a bucket that does not exist is no error.

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
    with needing_obstore():
        from obstore.store import HTTPStore, S3Store
    store: S3Store | HTTPStore
    with in_words(""):  # the environment may hold what is wrong
        if parts.scheme == "s3":
            _check_endpoint()
            # Without this, obstore would first look for the credentials of a virtual machine.
            anonymous: dict[str, Any] = {"skip_signature": True}
            signed = any(os.environ.get(name) for name in _CREDENTIALS)
            store = S3Store(
                parts.netloc,
                client_options=CLIENT,
                retry_config=RETRIES,
                **({} if signed else anonymous),
            )
        else:
            store = HTTPStore.from_url(
                f"{parts.scheme}://{parts.netloc}", client_options=CLIENT, retry_config=RETRIES
            )
    return store, joined(unquote(parts.path))


def _check_endpoint() -> None:
    """Raise PlaceError for an address of the S3 server at which obstore would panic."""
    for name in _ENDPOINTS:
        if not re.fullmatch(r"(https?://[^/\s@]+(/\S*)?)?", os.environ.get(name, "")):
            raise PlaceError(f"{name} is no address: give one such as https://s3.example.org")


@contextmanager
def needing_obstore() -> Iterator[None]:
    """Tell in words if the package obstore, which the block imports, is not installed."""
    try:
        yield
    except ImportError as error:
        raise PlaceError(
            "an address needs the package obstore: install this program with its extra 'remote'"
        ) from error


@contextmanager
def in_words(key: str, done: str = "read") -> Iterator[None]:
    """Turn the errors of obstore into a PlaceError: ``key`` cannot be ``done``, and why."""
    with needing_obstore():
        from obstore.exceptions import BaseError
    try:
        yield
    except PlaceError:
        raise
    except (BaseError, FileNotFoundError, ValueError, OSError) as error:
        where = f"cannot be {done} at {key or 'its address'}"
        if (reason := _reason(error)) is not None:
            raise PlaceError(f"{where}: {reason}") from error
        if re.search(r"status code: 40[13]\b", str(error)):
            raise DeniedError(
                f"{where}: the server denies it. Check what the credentials in the environment of "
                "this program may do"
            ) from error
        told = str(error).partition("status code: ")[2] or str(error)
        said = told.partition("\n")[0][:200]
        raise PlaceError(f"{where}: {said}") from error


def _reason(error: Exception) -> str | None:
    """Return what is wrong in plain words, if the error is a known one."""
    text = repr(error).lower()
    return next((words for sign, words in _REASONS if sign.lower() in text), None)
