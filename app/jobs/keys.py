"""Remembers the keys of requests, so that a request which is sent twice is done once."""

from sqlalchemy.orm import Session

from app.errors import Invalid, ProblemItem
from app.tables import IdempotencyKey


def find(session: Session, key: str, digest: str) -> IdempotencyKey | None:
    """Return the row of a key, if a request with this digest came with it before.

    Raises:
        Invalid: another request came with the key.
    """
    known = session.get(IdempotencyKey, key)
    if known is not None and known.request_digest != digest:
        message = f"the Idempotency-Key {key!r} came with another request before: send a new key"
        raise Invalid(message, [ProblemItem(where="header.Idempotency-Key", message=message)])
    return known
