"""Writes the log lines of the API. Each line names the request that it belongs to."""

import logging
from contextvars import ContextVar

REQUEST_ID_HEADER = "X-Request-ID"
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the request that is being answered here; a hyphen if there is none."""


class RequestIdFilter(logging.Filter):
    """Adds the ``request_id`` to each log record, and drops no record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = REQUEST_ID.get()
        return True


def write_log_lines(level: int) -> None:
    """Write log lines to standard error, unless the root logger has a handler already."""
    if logging.getLogger().handlers:
        return
    form = "%(asctime)s %(levelname)s %(name)s request=%(request_id)s %(message)s"
    handler = logging.StreamHandler()
    handler.addFilter(RequestIdFilter())
    logging.basicConfig(level=level, format=form, handlers=[handler])
