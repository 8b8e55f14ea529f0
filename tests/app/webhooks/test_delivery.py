"""Webhooks: real receivers on real sockets and real databases."""

import base64
import hashlib
import hmac
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select, update

from app.database import Database, now_plus
from app.jobs import orders, transitions
from app.settings import Settings
from app.tables import Job, JobEvent, JobKind, WebhookDelivery
from app.webhooks.delivery import Webhooks
from models.config.presets import preset
from tests.app.conftest import Serve
from tests.app.files import grey, mask, png, registered, upload, wrong
from tests.app.records import add_waiting
from tests.app.scrape import samples
from tests.app.webhooks.receivers import SECRET, Message, Receiver, add, make_due, waiting
from tests.processes import DEADLINE_SECONDS, wait_for
from tests.services import free_port

AGE = "stylefilter_webhook_age_seconds"


def expected_signature(message: Message) -> str:
    """Written from the specification, not from the code."""
    headers = message.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{message.body.decode()}"
    mac = hmac.new(SECRET, msg=signed.encode(), digestmod=hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


def test_a_job_tells_its_url_of_each_state_signed(
    signing: Settings, serve: Serve, receiver: Receiver
) -> None:
    api = serve(signing)
    images = {"0.png": png(grey(0))}
    source = registered(upload(api, images, {"0.png": png(mask())}))["id"]
    answer = api.post("/jobs/pretrain", json={"source": source, "webhook_url": receiver.url})
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    assert api.post(f"/jobs/{job}/cancel").status_code == 202
    wait_for(lambda: len(receiver.got) == 2, "both messages")

    queued, cancelled = receiver.got
    assert queued.path == "/hook?a=b"
    assert queued.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert queued.headers["content-type"] == "application/json"
    for message in receiver.got:
        assert message.headers["webhook-signature"] == expected_signature(message)
        assert abs(int(message.headers["webhook-timestamp"]) - time.time()) < 30
        created = datetime.fromisoformat(message.told.pop("created_at"))
        assert abs(created - datetime.now(UTC)) < timedelta(seconds=30)
    assert queued.headers["webhook-id"] != cancelled.headers["webhook-id"]
    event = queued.told["event"]
    about = {"type": "job.state", "job": job, "attempt": 0}
    assert queued.told == about | {"event": event, "state": "queued"}
    later = cancelled.told["event"]
    assert cancelled.told == about | {"event": later, "state": "cancelled"}
    assert later > event


def test_why_an_attempt_ended_is_told_and_who_ran_it_is_not(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    with database.session() as session:
        job = Job(
            kind=JobKind.ADAPT,
            config=preset("smoke").model_dump(mode="json"),
            webhook_url=receiver.url,
            announce_at=now_plus(),
        )
        session.add(job)
        session.commit()
    lease = transitions.claim(database, "host-of-a-worker", 60)
    assert lease is not None
    with database.session() as session:
        assert transitions.fail(session, lease, transitions.Failure("odd", "It is odd."))
        session.commit()
    assert webhooks.deliver()
    assert webhooks.deliver()
    running, failed = receiver.got
    assert set(running.told) == {"type", "event", "job", "state", "attempt", "created_at"}
    assert b"host-of-a-worker" not in running.body
    assert (failed.told["state"], failed.told["attempt"]) == ("failed", 1)
    assert (failed.told["code"], failed.told["message"]) == ("odd", "It is odd.")


def test_a_delivery_goes_when_it_arrived(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    add(database, receiver.url)
    receiver.statuses = [200, 202]
    assert [webhooks.deliver() for _ in range(3)] == [True, True, False]
    assert receiver.states == ["queued", "cancelled"]
    assert waiting(database) == []


def test_it_is_sent_again_with_the_same_id_and_before_what_came_later(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    add(database, receiver.url)
    receiver.statuses = [500, 404, 503]
    pauses = []
    for _ in range(3):
        make_due(database)
        assert webhooks.deliver()
        assert not webhooks.deliver()  # the later event is due, and waits
        pauses.append(waiting(database)[0])
    assert pauses == [
        (1, pytest.approx(10, abs=2)),
        (2, pytest.approx(20, abs=2)),
        (3, pytest.approx(40, abs=2)),
    ]
    make_due(database)
    assert webhooks.deliver()
    assert webhooks.deliver()
    assert receiver.states == ["queued"] * 4 + ["cancelled"]
    assert len({message.headers["webhook-id"] for message in receiver.got[:4]}) == 1
    assert len({message.body for message in receiver.got[:4]}) == 1
    for message in receiver.got:
        assert message.headers["webhook-signature"] == expected_signature(message)
    assert waiting(database) == []


def test_events_of_another_job_do_not_wait(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    first = add(database, f"http://127.0.0.1:{free_port()}/nobody-listens")
    second = add(database, receiver.url)
    assert [webhooks.deliver() for _ in range(4)] == [True, True, True, False]
    assert [message.told["job"] for message in receiver.got] == [str(second)] * 2
    assert str(first) != str(second)


def test_an_event_that_cannot_be_read_goes_and_stops_no_other(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    add(database, receiver.url)
    damages: list[Any] = [{"state": "of another version", "attempt": 1}, "text"]
    with database.session() as session:
        for event, damage in zip(session.scalars(select(JobEvent)), damages, strict=True):
            event.data = damage
        session.commit()
    whole = add(database, receiver.url)
    while webhooks.deliver():
        pass
    assert waiting(database) == []
    assert [message.told["job"] for message in receiver.got] == [str(whole)] * 2


def test_it_is_given_up_after_a_day_and_the_next_event_goes(
    database: Database, webhooks: Webhooks, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    job = add(database, receiver.url)
    receiver.statuses = [500] * 14
    seconds = 0.0
    for _ in range(14):
        assert webhooks.deliver()
        if receiver.statuses:
            seconds += waiting(database)[0][1]
            make_due(database)
    assert 22 * 3600 < seconds < 24 * 3600
    assert f"webhook_given_up job={job}" in caplog.text
    assert receiver.states == ["queued"] * 14
    assert webhooks.deliver()
    assert receiver.states[14:] == ["cancelled"]
    assert waiting(database) == []


def now_in(seconds: float, form: str) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime(form)


IMF, RFC_850, ASCTIME = "%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%c"


@pytest.mark.parametrize(
    ("status", "said", "pause"),
    [
        (429, "120", 120),
        (503, "120", 120),
        (503, (300, IMF), 300),
        (429, (300, RFC_850), 300),
        (429, (300, ASCTIME), 300),
        # No shorter than ours, and an hour at most.
        (429, "0", 10),
        (429, (-300, IMF), 10),
        (503, "3601", 3600),
        (503, "9" * 5000, 3600),
        (503, (1e6, IMF), 3600),
        (503, "Mon, 01 Jan 9999 00:00:00 GMT", 3600),
        # What is no pause, or of another answer.
        (503, None, 10),
        (503, "", 10),
        (503, "-120", 10),
        (503, "120.5", 10),
        (503, "soon", 10),
        (503, "\xb2", 10),
        (503, "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 10),
        (500, "120", 10),
        (301, "120", 10),
    ],
)
def test_a_pause_that_the_receiver_asks_for_is_kept(
    database: Database,
    webhooks: Webhooks,
    receiver: Receiver,
    status: int,
    said: str | tuple[float, str] | None,
    pause: float,
) -> None:
    add(database, receiver.url)
    receiver.statuses = [status]
    if said is not None:
        receiver.headers = {"retry-after": said if isinstance(said, str) else now_in(*said)}
    assert webhooks.deliver()
    assert waiting(database)[0] == (1, pytest.approx(pause, abs=3))


def test_a_pause_of_ours_that_is_longer_is_kept(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    add(database, receiver.url)
    make_due(database, attempts=9)
    receiver.statuses, receiver.headers = [429], {"retry-after": "7200"}
    assert webhooks.deliver()
    assert waiting(database)[0] == (10, pytest.approx(5120, abs=3))


def test_a_receiver_that_is_gone_is_told_nothing_more_of_that_job(
    database: Database, webhooks: Webhooks, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    gone = add_waiting(database, webhook_url=receiver.url)
    with database.session() as session:
        assert orders.pause(session, gone)
        session.commit()
    other = add(database, receiver.url)
    assert len(waiting(database)) == 4
    receiver.statuses = [410]
    assert webhooks.deliver()
    assert len(waiting(database)) == 2
    assert f"webhook_gone job={gone}" in caplog.text
    for change in (orders.resume, orders.cancel):
        with database.session() as session:
            assert change(session, gone)
            session.commit()
    assert [webhooks.deliver() for _ in range(3)] == [True, True, False]
    told = [(message.told["job"], message.told["state"]) for message in receiver.got]
    assert told == [(str(gone), "queued"), (str(other), "queued"), (str(other), "cancelled")]
    with database.reading() as session:  # what happened is kept
        events = select(JobEvent.id).where(JobEvent.job_id == gone, JobEvent.kind == "state")
        assert len(session.scalars(events).all()) == 4


def test_a_change_that_is_under_way_when_a_receiver_is_gone_is_not_told(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    job = add_waiting(database, webhook_url=receiver.url)
    changed, made = threading.Event(), []

    def cancel() -> None:
        with database.session() as session:
            assert orders.cancel(session, job)
            made.extend(session.scalars(select(WebhookDelivery.event_id)))
            changed.set()
            time.sleep(0.3)  # the answer comes meanwhile
            session.commit()

    with ThreadPoolExecutor(1) as thread:
        receiver.statuses = [410]
        receiver.before_answer = lambda _: (thread.submit(cancel), changed.wait(DEADLINE_SECONDS))
        assert webhooks.deliver()
    assert len(made) == 2
    assert waiting(database) == []
    assert receiver.states == ["queued"]
    with database.reading() as session:
        assert session.get_one(Job, job).webhook_url is None
        assert session.get_one(Job, job).state == "cancelled"


def test_tries_and_what_waits_are_counted(
    api: httpx.Client, database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    def outcomes() -> list[float]:
        found, names = samples(api), ("delivered", "retried", "given_up", "gone")
        return [found["stylefilter_webhook_tries_total", name] for name in names]

    def queue() -> tuple[float, float]:
        found = samples(api)
        return found["stylefilter_webhooks_waiting", ""], found[AGE, ""]

    assert queue() == (0, 0)
    before = outcomes()
    for _ in range(3):
        add(database, receiver.url)
    with database.session() as session:
        oldest = session.scalars(select(JobEvent.id).order_by(JobEvent.id)).first()
        at = update(JobEvent).where(JobEvent.id == oldest).values(created_at=now_plus(-600))
        session.execute(at)
        session.commit()
    assert queue() == (6, pytest.approx(600, abs=20))
    receiver.statuses = [500, 200, 410]
    for _ in range(3):  # the first job waits; the second is told once
        assert webhooks.deliver()
    assert queue() == (4, pytest.approx(600, abs=20))
    make_due(database, attempts=13)
    receiver.statuses = [500]
    while waiting(database):
        assert webhooks.deliver()
    assert queue() == (0, 0)
    tried = [after - of for after, of in zip(outcomes(), before, strict=True)]
    assert tried == [4, 1, 1, 1]
    assert sum(tried) == len(receiver.got)


def test_of_many_who_send_at_once_one_does(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    for _ in range(3):
        add(database, receiver.url)
    barrier = threading.Barrier(6)

    def send_all(_: int) -> None:
        own = Database(settings.database)
        webhooks = Webhooks(own, SECRET, ("127.0.0.1",))
        barrier.wait()
        while waiting(own):
            webhooks.deliver()
        own.close()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(send_all, range(6)))
    assert len(receiver.got) == 6
    assert len({message.told["event"] for message in receiver.got}) == 6
    for job in {message.told["job"] for message in receiver.got}:
        states = [m.told["state"] for m in receiver.got if m.told["job"] == job]
        assert states == ["queued", "cancelled"]


def test_while_one_sends_no_other_takes_it(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    add(database, receiver.url)
    seen: list[object] = []

    def look(_: BaseHTTPRequestHandler) -> None:
        seen.extend((waiting(database)[0], webhooks.deliver()))

    receiver.before_answer = look
    assert webhooks.deliver()
    assert seen == [(1, pytest.approx(60, abs=2)), False]


def test_the_delivery_of_a_sender_that_was_lost_is_sent_by_another(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    add(database, receiver.url)
    make_due(database, attempts=3)  # as it left it, when its time has run out
    assert webhooks.deliver()
    assert receiver.states == ["queued"]


def test_without_a_secret_there_are_no_webhooks(api: httpx.Client) -> None:
    body = {"source": str(UUID(int=0)), "webhook_url": "https://8.8.8.8/hook"}
    refused = wrong(api.post("/jobs/pretrain", json=body))
    assert list(refused) == ["body.webhook_url"]
    assert "STYLEFILTER_WEBHOOK_SECRET_FILE" in refused["body.webhook_url"]
