"""The event stream and the log of a job: real servers, real rows, real files."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import Engine, delete, event, select

from app.client.client import Client
from app.database import Database
from app.jobs import orders
from app.jobs.event_schemas import PriorityEvent, ProgressEvent, parse_event
from app.jobs.events import Listener
from app.jobs.transitions import Failure, fail, succeed
from app.storage import Storage
from app.tables import Job, JobEvent, JobKind
from tests.app.files import problem, wrong
from tests.app.records import add_waiting
from tests.app.streams import (
    Stream,
    Told,
    ask,
    claimed,
    do,
    ids,
    log_of,
    parsed,
    stored,
    tell,
    train,
)
from tests.processes import DEADLINE_SECONDS, join, wait_for


def of(kind: str, told: list[Told]) -> list[dict[str, Any]]:
    return [one.data for one in told if one.kind == kind]


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements about events that this process, which is the service too, sends."""
    seen: list[str] = []

    def note(*arguments: Any) -> None:
        if "job_events" in arguments[2] and "FROM jobs" in arguments[2]:
            seen.append(arguments[2])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_a_benchmark_tells_how_many_parts_have_ended(
    api: httpx.Client, database: Database, job_id: UUID
) -> None:
    with database.session() as session:
        session.get_one(Job, job_id).kind = JobKind.BENCHMARK
        session.commit()
    parts = [add_waiting(database, parent_id=job_id, plan={}) for _ in range(2)]
    stream = Stream(api, job_id)
    for ended in range(3):
        told = {"ended": ended, "total": 2}
        stream.until(lambda one, told=told: one.kind == "progress" and one.data["parts"] == told)  # type: ignore[misc]
        do(database, orders.cancel, [*parts, job_id][ended])
    stream.end()


def test_what_another_version_stored_stops_no_stream(
    api: httpx.Client, database: Database, job_id: UUID
) -> None:
    tell(database, job_id, 3)
    do(database, orders.cancel, job_id)
    damages: list[Any] = ["text", {"priority": "highest", "more": 1}]
    with database.session() as session:
        query = select(JobEvent).where(JobEvent.kind == "priority").order_by(JobEvent.id)
        for row, damage in zip(session.scalars(query), damages, strict=False):
            row.data = damage
        session.commit()
    told = Stream(api, job_id).end()
    assert ids(told) == stored(database, job_id)
    assert [set(one) - {"id", "at"} for one in of("priority", told)] == [
        set(),
        {"priority", "more"},
        {"priority", "padding"},
    ]
    with Client(str(api.base_url)) as client:
        events = list(client.events(job_id))
    assert [event.priority for event in events if isinstance(event, PriorityEvent)] == [0]
    assert parse_event("of another version", "{}") is None


def test_a_job_is_told_from_submission_to_end(
    api: httpx.Client, database: Database, storage: Storage, job_id: UUID
) -> None:
    stream = Stream(api, job_id)
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["cache-control"] == "no-cache"
    assert stream.headers["x-accel-buffering"] == "no"
    stream.until(lambda told: told.kind == "progress" and told.data["state"] == "queued")
    lease = claimed(database)
    log = log_of(storage, lease)
    log.write_text("one\ntwo\nhal")
    train(database, lease, 1, loss=0.5, other=3.0)
    stream.until(lambda told: told.kind == "progress" and told.data["step"] == 1)
    stream.until(lambda told: told.kind == "stage")
    stream.until(lambda told: told.kind == "log")
    train(database, lease, 3, loss=0.25)
    stream.until(lambda told: told.kind == "progress" and told.data["step"] == 3)
    train(database, lease, 4, loss=0.125, **{"dice/mean": 0.9})
    with log.open("ab") as more:
        more.write(b"f\n\xff\xe2\x80\xa8last")
    do(database, succeed, lease, {})
    told = stream.end()

    assert ids(told) == stored(database, job_id)
    assert all(one.data["id"] == one.id and "at" in one.data for one in told if one.id)
    assert [(one["state"], one["attempt"]) for one in of("state", told)] == [
        ("queued", 0),
        ("running", 1),
        ("succeeded", 1),
    ]
    assert [(one["step"], one["done"]) for one in of("stage", told)] == [(1, False), (4, True)]
    progress = {one["step"]: one for one in of("progress", told)}
    assert progress[3] == {
        "state": "running",
        "attempt": 1,
        "stage": "style",
        "step": 3,
        "total": 4,
        "seconds": 1.5,
        "steps_per_second": 2.0,
        "eta_seconds": 0.5,
        "losses": {"loss": 0.25, "other": 3.0},
        "parts": None,
    }
    assert progress[4]["state"] == "succeeded"
    assert progress[4]["losses"] == {"loss": 0.125, "other": 3.0}
    lines = [line for one in of("log", told) for line in one["lines"]]
    assert lines == ["one", "two", "half", "�", "last"]
    assert {one["attempt"] for one in of("log", told)} == {1}
    # Who stops listening at the end has heard everything.
    assert (told[-1].kind, told[-1].data["state"]) == ("state", "succeeded")


def test_a_stream_goes_on_after_an_event(
    api: httpx.Client, database: Database, job_id: UUID
) -> None:
    path = f"/jobs/{job_id}/events"
    tell(database, job_id, 3)
    assert do(database, orders.cancel, job_id)
    everything = stored(database, job_id)
    assert len(everything) == 5
    assert ids(list(parsed(api.get(path).iter_lines()))) == everything
    for after in (0, *everything[:-1]):
        expected = [one for one in everything if one > after]
        by_header = api.get(path, headers={"Last-Event-ID": str(after)})
        assert ids(list(parsed(by_header.iter_lines()))) == expected
        by_query = api.get(path, params={"after": after})
        assert ids(list(parsed(by_query.iter_lines()))) == expected
    # A browser sends its first address again, with the header: the header is newer.
    both = api.get(path, params={"after": 0}, headers={"Last-Event-ID": str(everything[3])})
    assert ids(list(parsed(both.iter_lines()))) == everything[4:]
    # 204 tells a browser to stop asking.
    for last in (everything[-1], (1 << 63) - 1):
        over = api.get(path, headers={"Last-Event-ID": str(last)})
        assert (over.status_code, over.content) == (204, b"")


def test_a_long_history_comes_whole(api: httpx.Client, database: Database, job_id: UUID) -> None:
    tell(database, job_id, 1234)
    do(database, orders.cancel, job_id)
    told = list(parsed(api.get(f"/jobs/{job_id}/events").iter_lines()))
    assert ids(told) == stored(database, job_id)
    assert told[-1].data["state"] == "cancelled"


def test_the_failure_of_a_job_that_was_retried_is_not_its_end(
    api: httpx.Client, database: Database, job_id: UUID
) -> None:
    do(database, fail, claimed(database), Failure("code", "why"))
    do(database, orders.retry, job_id)
    stream = Stream(api, job_id)
    stream.until(lambda told: told.kind == "progress")
    do(database, succeed, claimed(database), {})
    states = [one["state"] for one in of("state", stream.end())]
    assert states == ["queued", "running", "failed", "queued", "running", "succeeded"]


def test_an_ended_job_without_events_is_told_once(
    api: httpx.Client, database: Database, job_id: UUID
) -> None:
    do(database, orders.cancel, job_id)
    with database.session() as session:
        session.execute(delete(JobEvent))
        session.commit()
    (told,) = parsed(api.get(f"/jobs/{job_id}/events").iter_lines())
    assert (told.kind, told.data["state"]) == ("progress", "cancelled")
    assert api.get(f"/jobs/{job_id}/events?after=0").status_code == 204
    with Client(str(api.base_url)) as client:
        assert [type(one) for one in client.events(job_id)] == [ProgressEvent]


def test_refusals(api: httpx.Client, job_id: UUID) -> None:
    unknown = uuid4()
    assert str(unknown) in problem(api.get(f"/jobs/{unknown}/events"), 404)["detail"]
    path = f"/jobs/{job_id}/events"
    for value in ("x", "-1", "1.5", "9" * 30):
        header = wrong(api.get(path, headers={"Last-Event-ID": value}))
        assert [where.lower() for where in header] == ["header.last-event-id"], value
        assert list(wrong(api.get(path, params={"after": value}))) == ["query.after"]


def test_who_comes_late_hears_the_last_lines_and_what_is_now(
    api: httpx.Client, database: Database, storage: Storage, job_id: UUID
) -> None:
    lease = claimed(database)
    log_of(storage, lease).write_text("".join(f"line {n}\n" for n in range(100)))
    train(database, lease, 2, loss=0.5)
    first = Stream(api, job_id)
    first.until(lambda told: told.kind == "progress")
    second = Stream(api, job_id)
    again = Stream(api, job_id, after=stored(database, job_id)[-1])
    for stream in (first, second, again):
        progress = stream.until(lambda told: told.kind == "progress")
        assert (progress.data["step"], progress.data["losses"]) == (2, {"loss": 0.5})
    do(database, succeed, lease, {})
    for stream in (first, second):
        (log,) = of("log", stream.end())
        assert log["lines"] == [f"line {n}" for n in range(80, 100)]
        assert log["skipped_bytes"] == 0
    assert of("log", again.end()) == []
    assert len(ids(again.told)) == 1


async def _listen(port: int, job_id: UUID, began: asyncio.Event) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        writer.write(request.encode())
        text = (await reader.readuntil(b"event: progress\n")).decode()
        began.set()
        text += (await reader.read(-1)).decode()
    finally:
        writer.close()
    return text


def test_200_listeners_cost_one_reader(api: httpx.Client, database: Database, job_id: UUID) -> None:
    lease = claimed(database)
    num = 200

    async def listen() -> list[str]:
        signals = [asyncio.Event() for _ in range(num)]
        port = api.base_url.port
        assert port is not None
        tasks = [asyncio.create_task(_listen(port, job_id, signal)) for signal in signals]
        await asyncio.gather(*(signal.wait() for signal in signals))
        threads = threading.active_count()
        began = time.monotonic()
        seen.clear()
        for step in range(4):
            looks = len(seen)
            await asyncio.to_thread(train, database, lease, step + 1)
            await asyncio.to_thread(wait_for, lambda looks=looks: len(seen) > looks, "a look")
        assert len(seen) <= (time.monotonic() - began) / 0.7 + 2
        assert threads < num / 2  # the server's own 40, which are idle, and few more
        # Others are served meanwhile.
        ready = await asyncio.to_thread(api.get, f"/jobs/{job_id}")
        assert ready.status_code == 200
        await asyncio.to_thread(do, database, succeed, lease, {})
        return await asyncio.gather(*tasks)

    with counted() as seen:
        heard = asyncio.run(listen())
    assert len(heard) == num
    for text in heard:
        for number in stored(database, job_id):
            assert text.count(f"\nid: {number}\n") == 1
        assert '"state": "succeeded"' in text


def test_who_leaves_is_forgotten(api: httpx.Client, job_id: UUID) -> None:
    streams = []
    with counted() as seen:
        for _ in range(2):
            stream = api.stream("GET", f"/jobs/{job_id}/events")
            lines = stream.__enter__().iter_lines()
            next(told for told in parsed(lines) if told.kind == "progress")
            streams.append((stream, lines))
        for stream, lines in streams:
            lines.close()
            stream.__exit__(None, None, None)
        looks = [(len(seen), time.monotonic())]

        def none_any_more() -> bool:
            if looks[-1][0] != len(seen):
                looks.append((len(seen), time.monotonic()))
            return time.monotonic() - looks[-1][1] > 2  # nearly three of the intervals of looks

        wait_for(none_any_more, "the last look")


def test_a_client_that_does_not_read_has_to_come_again(
    api: httpx.Client, database: Database, job_id: UUID
) -> None:
    quick: list[int] = []

    def follow() -> None:
        with Client(str(api.base_url)) as client:
            for told in client.events(job_id):
                if isinstance(told, PriorityEvent):
                    quick.append(told.id)

    follower = threading.Thread(target=follow)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        slow.connect(("127.0.0.1", api.base_url.port))
        slow.sendall(ask(job_id))
        slow.settimeout(DEADLINE_SECONDS)
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
        follower.start()
        sent = [told for _ in range(40) for told in tell(database, job_id, 1, "x" * 500_000)]
        wait_for(lambda: quick[-1:] == sent[-1:], "the last event")
        read = b""
        while not read.endswith(b"\r\n0\r\n\r\n"):  # the end of a chunked response
            read += slow.recv(1 << 20)
    got = [int(part.split(b"\r")[0].split(b"\n")[0]) for part in read.split(b"\nid: ")[1:]]
    everything = stored(database, job_id)
    assert 0 < len(got) < len(everything)
    assert got == everything[: len(got)]
    do(database, orders.cancel, job_id)
    join(follower)
    assert quick == sent


def test_what_waits_for_a_listener_is_bounded() -> None:
    async def fill() -> tuple[Listener, bytes]:
        listener = Listener(after=3)
        for number in range(1, 3000):
            listener.offer(b"x" * 1000, number)
        return listener, b"".join([chunk async for chunk in listener.stream()])

    listener, sent = asyncio.run(fill())
    assert listener.closed
    assert listener.last == 3 + (1 << 20) // 1000
    assert sent.count(b"x") == 1000 * (listener.last - 3)
