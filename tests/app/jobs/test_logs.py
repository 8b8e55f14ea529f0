"""Logs of attempts: read whole, and followed from attempt to attempt."""

from pathlib import Path
from uuid import UUID, uuid4

import httpx

from app.client.client import Client
from app.database import Database
from app.jobs.event_schemas import LogEvent
from app.jobs.logs import LogFollower
from app.jobs.transitions import hand_back
from app.storage import Storage
from tests.app.files import problem, wrong
from tests.app.streams import claimed, do, log_of


def test_the_log_of_an_attempt(
    api: httpx.Client, database: Database, storage: Storage, job_id: UUID
) -> None:
    path = f"/jobs/{job_id}/log"
    assert " 0 attempt" in problem(api.get(path), 404)["detail"]
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
        assert f"attempt {attempt}" in refused["detail"]
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
