"""Ids of requests: in the answer, and in the log lines that the request caused."""

import logging
from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Uuid, column, table, update

from app.columns import Json
from app.database import Database
from app.middleware.logs import REQUEST_ID_HEADER, RequestIdFilter
from tests.app.files import grey, png, problem, registered, upload


class Kept(logging.Handler):
    """Keeps records as the API's own handler sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(RequestIdFilter())
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    logger = logging.getLogger("app")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_each_answer_names_its_request(api: httpx.Client) -> None:
    answers = [api.get("/livez"), api.get("/livez"), api.get("/nothing")]
    names = [answer.headers[REQUEST_ID_HEADER] for answer in answers]
    assert len(set(names)) == 3
    assert all(len(name) == 32 for name in names)


def test_an_id_that_was_sent_is_kept(api: httpx.Client) -> None:
    for path in ("/livez", "/jobs", "/nothing"):
        answer = api.get(path, headers={REQUEST_ID_HEADER: "proxy-1.a_B"})
        assert answer.headers[REQUEST_ID_HEADER] == "proxy-1.a_B"


@pytest.mark.parametrize("given", ["", "a b", "a=b", "x" * 101, "a;b"])
def test_what_could_break_a_log_line_is_replaced(api: httpx.Client, given: str) -> None:
    answer = api.get("/livez", headers={REQUEST_ID_HEADER: given})
    assert len(answer.headers[REQUEST_ID_HEADER]) == 32


def test_a_failure_is_found_in_the_log_by_its_answer(
    api: httpx.Client, database: Database, kept: Kept
) -> None:
    dataset = registered(upload(api, {"a.png": png(grey(1))}))["id"]
    rows = table("datasets", column("id", Uuid()), column("sections", Json))
    with database.session() as session:
        damaged = update(rows).where(rows.c.id == UUID(dataset)).values(sections=[{"name": "a"}])
        session.execute(damaged)
        session.commit()
    failed = api.get(f"/datasets/{dataset}", headers={REQUEST_ID_HEADER: "find-me"})
    assert problem(failed, 500)["code"] == "internal_error"
    assert failed.headers[REQUEST_ID_HEADER] == "find-me"
    (record,) = [record for record in kept.records if record.exc_info]
    assert record.__dict__["request_id"] == "find-me"
