"""The event stream and the log of a job: real servers, real rows, real files."""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import Engine, delete, event

from app.client import ApiError, Client
from app.database import Database
from app.jobs import transitions
from app.jobs.event_schemas import LogEvent, PriorityEvent, ProgressEvent, StateEvent
from app.jobs.events import Listener
from app.jobs.logs import LogFollower
from app.jobs.transitions import Failure, Lease, fail, hand_back, record, succeed, write
from app.settings import Settings
from app.storage import Storage
from app.tables import Job, JobEvent, JobKind, JobStage, MetricPoint
from tests.app.files import problem, wrong
from tests.app.records import add_waiting
from tests.app.streams import Stream, Told, claimed, do, ids, parsed, service, stored, tell
from tests.processes import running, wait_for
from tests.services import free_port


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_waiting(database)


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.data_folder)


def train(database: Database, lease: Lease, step: int, total: int = 4, **losses: float) -> None:
    """A report as the trainer makes it."""
    with database.session() as session:
        write(session, lease, stage="style", step=step, total=total, steps_per_second=2.0)
        stage = {"stage": "style", "step": step, "total": total}
        session.merge(
            JobStage(job_id=lease.job_id, position=0, seconds=step / 2, finished=False, **stage)
        )
        for name, value in losses.items():
            point = MetricPoint(job_id=lease.job_id, stage="style", name=name, step=step)
            point.value = value
            session.add(point)
        if step in (1, total):
            data = stage | {"done": step == total, "attempt": lease.attempt}
            record(session, lease.job_id, "stage", data)
        session.commit()


def ask(job_id: UUID) -> bytes:
    return f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def log_of(storage: Storage, lease: Lease) -> Path:
    path = storage.log(lease.job_id, lease.attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


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


# --- the stream -----------------------------------------------------------------------------------


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
    began = time.monotonic()
    stream.until(lambda told: told.kind == "progress" and told.data["step"] == 1)
    stream.until(lambda told: told.kind == "stage")
    stream.until(lambda told: told.kind == "log")
    assert time.monotonic() - began < 3
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
    assert do(database, transitions.cancel, job_id)
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
    do(database, transitions.cancel, job_id)
    told = list(parsed(api.get(f"/jobs/{job_id}/events").iter_lines()))
    assert ids(told) == stored(database, job_id)
    assert told[-1].data["state"] == "cancelled"


def test_the_failure_of_a_job_that_was_retried_is_not_its_end(
    api: httpx.Client, database: Database, job_id: UUID
) -> None:
    do(database, fail, claimed(database), Failure("code", "why"))
    do(database, transitions.retry, job_id)
    stream = Stream(api, job_id)
    stream.until(lambda told: told.kind == "progress")
    do(database, succeed, claimed(database), {})
    states = [one["state"] for one in of("state", stream.end())]
    assert states == ["queued", "running", "failed", "queued", "running", "succeeded"]


def test_an_ended_job_without_events_is_told_once(
    api: httpx.Client, database: Database, job_id: UUID
) -> None:
    do(database, transitions.cancel, job_id)
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
    refused = problem(api.get(f"/jobs/{unknown}/events"), 404)
    assert refused["detail"] == f"there is no job {unknown}"
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


# --- many, slow, and gone -------------------------------------------------------------------------


async def _listen(port: int, job_id: UUID, began: asyncio.Event) -> tuple[str, float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        writer.write(request.encode())
        text = (await reader.readuntil(b"event: progress\n")).decode()
        began.set()
        text += (await reader.read(-1)).decode()
    finally:
        writer.close()
    return text, time.monotonic()


def test_200_listeners_cost_one_reader(api: httpx.Client, database: Database, job_id: UUID) -> None:
    lease = claimed(database)
    num, seconds, ended = 200, 4.0, 0.0

    async def listen() -> list[tuple[str, float]]:
        nonlocal ended
        signals = [asyncio.Event() for _ in range(num)]
        port = api.base_url.port
        assert port is not None
        tasks = [asyncio.create_task(_listen(port, job_id, signal)) for signal in signals]
        await asyncio.gather(*(signal.wait() for signal in signals))
        threads = threading.active_count()
        seen.clear()
        for step in range(4):
            await asyncio.sleep(seconds / 4)
            await asyncio.to_thread(train, database, lease, step + 1)
        assert 2 <= len(seen) <= seconds / 0.7 + 2
        assert threads < num / 2  # the server's own 40, which are idle, and few more
        # Others are served meanwhile.
        began = time.monotonic()
        ready = await asyncio.to_thread(api.get, f"/jobs/{job_id}")
        assert ready.status_code == 200
        assert time.monotonic() - began < 2
        await asyncio.to_thread(do, database, succeed, lease, {})
        ended = time.monotonic()
        return await asyncio.gather(*tasks)

    with counted() as seen:
        heard = asyncio.run(listen())
    assert len(heard) == num
    for text, at in heard:
        for number in stored(database, job_id):
            assert text.count(f"\nid: {number}\n") == 1
        assert '"state": "succeeded"' in text
        assert at - ended < 5


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
        time.sleep(1.5)  # the service notices, and ends its last look
        seen.clear()
        time.sleep(2)
        assert seen == []


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
        slow.settimeout(20)
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
        follower.start()
        sent = [told for _ in range(40) for told in tell(database, job_id, 1, "x" * 500_000)]
        wait_for(lambda: quick[-1:] == sent[-1:], "the last event", 20)
        read = b""
        while not read.endswith(b"\r\n0\r\n\r\n"):  # the end of a chunked response
            read += slow.recv(1 << 20)
    got = [int(part.split(b"\r")[0].split(b"\n")[0]) for part in read.split(b"\nid: ")[1:]]
    everything = stored(database, job_id)
    assert 0 < len(got) < len(everything)
    assert got == everything[: len(got)]
    do(database, transitions.cancel, job_id)
    follower.join(20)
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


# --- the log --------------------------------------------------------------------------------------


def test_the_log_of_an_attempt(
    api: httpx.Client, database: Database, storage: Storage, job_id: UUID
) -> None:
    path = f"/jobs/{job_id}/log"
    missing = problem(api.get(path), 404)
    assert missing["detail"] == (
        f"there is no log of an attempt of job {job_id}; it is at attempt 0"
    )
    for attempt in (1, 2):
        lease = claimed(database)
        log_of(storage, lease).write_bytes(f"attempt {attempt}\n\xff\n".encode("latin-1"))
        do(database, hand_back, lease)
    claimed(database)  # the third has written nothing yet
    newest = api.get(path)
    assert newest.headers["content-type"] == "text/plain; charset=utf-8"
    assert newest.text == "attempt 2\n�\n"
    assert api.get(path, params={"attempt": 1}).text == "attempt 1\n�\n"
    assert api.get(path, params={"attempt": 2, "tail_bytes": 5}).text == "�\n"
    for attempt in (3, 4):
        refused = problem(api.get(path, params={"attempt": attempt}), 404)
        assert f"no log of attempt {attempt}" in refused["detail"]
    for name, value in (("attempt", "0"), ("tail_bytes", "0"), ("tail_bytes", str(1 << 25))):
        assert list(wrong(api.get(path, params={name: value}))) == [f"query.{name}"]
    problem(api.get(f"/jobs/{uuid4()}/log"), 404)
    with Client(str(api.base_url)) as client:
        assert client.log(job_id, 1) == "attempt 1\n�\n"


def test_a_log_is_followed_from_attempt_to_attempt(tmp_path: Path) -> None:
    storage, job_id = Storage(tmp_path), uuid4()
    follower = LogFollower(storage, job_id)

    def look(attempt: int, *, ended: bool = False) -> list[LogEvent]:
        return list(follower.look(attempt, ended=ended))

    first, second = (storage.log(job_id, attempt) for attempt in (1, 2))
    first.parent.mkdir(parents=True)
    assert look(0) == []
    assert follower.recent() is None
    first.write_bytes(b"a\nb")
    assert look(1) == [LogEvent(attempt=1, lines=["a"])]
    assert look(1) == []
    with first.open("ab") as log:
        log.write("ö".encode()[:1])
    assert look(1) == []
    with first.open("ab") as log:
        log.write("ö".encode()[1:] + b"\nunfinished")
    assert look(1) == [LogEvent(attempt=1, lines=["bö"])]
    second.write_bytes(b"c\n")
    assert look(2) == [
        LogEvent(attempt=1, lines=["unfinished"]),
        LogEvent(attempt=2, lines=["c"]),
    ]
    with second.open("ab") as log:
        log.write(b"y" * 5000 + b"\n" + b"".join(b"%07d\n" % n for n in range(100_000)) + b"end")
    (flood,) = look(2, ended=True)
    assert flood.lines[-2:] == ["0099999", "end"]
    assert flood.lines[0] == f"{100_000 - len(flood.lines) + 1:07d}"
    assert sum(len(line) + 1 for line in flood.lines) <= 1 << 16
    assert flood.skipped_bytes == 5001 + 800_003 - (1 << 16)
    recent = follower.recent()
    assert recent is not None
    assert recent.lines == flood.lines[-20:]


# --- stops and restarts ---------------------------------------------------------------------------


def test_open_streams_do_not_delay_a_stop_and_clients_go_on_with_the_next(
    settings: Settings, database: Database, job_id: UUID
) -> None:
    port, heard, failed = free_port(), [], []

    def follow(url: str) -> None:
        try:
            with Client(url) as client:
                heard.extend(client.events(job_id, patience_seconds=60))
        except BaseException as error:  # for the test's own thread
            failed.append(error)
            raise

    with service(settings, port) as (process, url):
        follower = threading.Thread(target=follow, args=(url,))
        follower.start()
        wait_for(lambda: heard, "the first event")
        with ExitStack() as stack:
            for _ in range(20):
                address = ("127.0.0.1", port)
                stream = stack.enter_context(socket.create_connection(address, timeout=20))
                stream.sendall(ask(job_id))
                assert stream.recv(100).startswith(b"HTTP/1.1 200")
            process.send_signal(signal.SIGTERM)
            stopped = time.monotonic()
            process.wait(20)
            assert time.monotonic() - stopped < 3
    lease = claimed(database)
    with service(settings, port):
        train(database, lease, 1)
        do(database, succeed, lease, {})
        follower.join(30)
        assert not follower.is_alive()
    assert failed == []
    recorded = [one.id for one in heard if hasattr(one, "id")]
    assert recorded == stored(database, job_id)
    states = [one.state for one in heard if isinstance(one, StateEvent)]
    assert states == ["queued", "running", "succeeded"]
    assert "Traceback" not in (settings.data_folder.parent / "service.log").read_text()


@pytest.mark.slow
def test_ctrl_c_ends_up_with_open_streams(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "up.log"
    data = tmp_path / "data"
    command = [sys.executable, "-m", "app.cli.main", "up", "--port", str(port)]
    with running(command, {"STYLEFILTER_DATA_FOLDER": str(data)}, log) as process:
        with Client(f"http://127.0.0.1:{port}") as client:
            wait_for(client.ready, "the service")
        database = Database(f"sqlite:///{data / 'stylefilter.db'}")
        with database.session() as session:
            job = Job(kind=JobKind.ADAPT, config={}, announce_at=None)
            session.add(job)
            session.commit()
        database.close()
        address = ("127.0.0.1", port)
        streams = [socket.create_connection(address, timeout=20) for _ in range(5)]
        for stream in streams:
            stream.sendall(ask(job.id))
            assert stream.recv(10)
        os.killpg(process.pid, signal.SIGINT)
        stopped = time.monotonic()
        process.wait(30)
        assert time.monotonic() - stopped < 10, log.read_text()  # most of it is the worker
        assert "timeout graceful shutdown" not in log.read_text()
        for stream in streams:
            stream.close()


def test_the_client_says_why_it_cannot_follow(api: httpx.Client) -> None:
    unknown = uuid4()
    with Client(str(api.base_url)) as client, pytest.raises(ApiError, match="there is no job"):
        list(client.events(unknown))
    with Client("http://127.0.0.1:1") as client, pytest.raises(ApiError, match="refused"):
        list(client.events(unknown))
