"""Webhooks: real receivers on real sockets, real databases, real certificates."""

import base64
import hashlib
import hmac
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select, update

from app.database import Database, now_plus
from app.jobs import transitions
from app.settings import Settings
from app.tables import Job, JobEvent, JobKind, WebhookDelivery
from app.webhooks import targets
from app.webhooks.delivery import Webhooks
from models.config import preset
from tests.app.conftest import Serve
from tests.app.files import grey, mask, png, registered, upload, wrong
from tests.app.records import add_waiting
from tests.app.scrape import samples
from tests.processes import wait_for
from tests.services import free_port

AGE = "stylefilter_webhook_age_seconds"
SECRET = bytes(range(32))
SECRET_TEXT = f"whsec_{base64.b64encode(SECRET).decode()}\n"


@dataclass
class Message:
    path: str
    headers: dict[str, str]
    body: bytes
    told: dict[str, Any]


@dataclass
class Receiver:
    """An HTTP server that keeps what it got; it answers what it is told to, then 204."""

    server: ThreadingHTTPServer
    got: list[Message] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    before_answer: Callable[[BaseHTTPRequestHandler], object] = lambda _: None
    after_head: Callable[[BaseHTTPRequestHandler], object] = lambda _: None

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?a=b"

    @property
    def states(self) -> list[str]:
        return [message.told["state"] for message in self.got]


@contextmanager
def listening(tls: SSLContext | None = None) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.got.append(Message(self.path, headers, body, json.loads(body)))
            receiver.before_answer(self)
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            with suppress(OSError):  # the other side may have heard enough
                self.end_headers()
                receiver.after_head(self)

        def do_GET(self) -> None:
            raise AssertionError("a webhook is a POST")

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a refused handshake is what some tests are about

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        receiver = Receiver(server)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as receiver:
        yield receiver


@pytest.fixture
def webhooks(database: Database) -> Webhooks:
    return Webhooks(database, SECRET, ("127.0.0.1",))


@pytest.fixture
def signing(settings: Settings, tmp_path: Path) -> Settings:
    """The test's settings with a secret, and this machine as an allowed receiver."""
    file = tmp_path / "secret"
    file.write_text(SECRET_TEXT)
    update = {"webhook_secret_file": file, "webhook_hosts": ("127.0.0.1",)}
    return settings.model_copy(update=update)


def add(database: Database, url: str) -> UUID:
    """A job that was submitted and cancelled: two state events."""
    with database.session() as session:
        job = Job(kind=JobKind.ADAPT, config=preset("smoke").model_dump(), webhook_url=url)
        session.add(job)
        session.flush()
        transitions.submitted(session, job)
        assert transitions.cancel(session, job.id)
        session.commit()
        return job.id


def waiting(database: Database) -> list[tuple[int, float]]:
    """Attempts of each delivery, and the seconds until its next."""
    query = select(WebhookDelivery.attempts, WebhookDelivery.next_at, now_plus())
    with database.reading() as session:
        rows = session.execute(query.order_by(WebhookDelivery.event_id)).all()
    return [(attempts, (at - now).total_seconds()) for attempts, at, now in rows]


def make_due(database: Database, **values: int) -> None:
    with database.session() as session:
        session.execute(update(WebhookDelivery).values(next_at=now_plus(-1), **values))
        session.commit()


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
    wait_for(lambda: len(receiver.got) == 2, 20)

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
            config=preset("smoke").model_dump(),
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
        assert transitions.pause(session, gone)
        session.commit()
    other = add(database, receiver.url)
    assert len(waiting(database)) == 4
    receiver.statuses = [410]
    assert webhooks.deliver()
    assert len(waiting(database)) == 2
    assert f"webhook_gone job={gone}" in caplog.text
    for change in (transitions.resume, transitions.cancel):
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
            assert transitions.cancel(session, job)
            made.extend(session.scalars(select(WebhookDelivery.event_id)))
            changed.set()
            time.sleep(0.3)  # the answer comes meanwhile
            session.commit()

    with ThreadPoolExecutor(1) as thread:
        receiver.statuses = [410]
        receiver.before_answer = lambda _: (thread.submit(cancel), changed.wait(20))
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


def test_a_redirect_is_not_followed(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    with listening() as inner:
        receiver.statuses = [302, 307]
        receiver.headers = {"location": inner.url}
        add(database, receiver.url)
        for _ in range(2):
            make_due(database)
            assert webhooks.deliver()
        assert inner.got == []
    assert len(receiver.got) == 2
    assert waiting(database)[0][0] == 2


def test_an_endless_answer_is_not_read(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    def pour(handler: BaseHTTPRequestHandler) -> None:
        while True:
            handler.wfile.write(b"x" * (1 << 16))

    receiver.statuses = [200]
    receiver.after_head = pour
    add(database, receiver.url)
    started = time.monotonic()
    assert webhooks.deliver()
    assert time.monotonic() - started < 5
    assert len(waiting(database)) == 1


def test_a_receiver_that_dawdles_is_left(database: Database, receiver: Receiver) -> None:
    """It sends a byte now and then, so that no single wait is long."""

    def dawdle(handler: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
            for _ in range(60):
                handler.wfile.write(b"x")
                time.sleep(0.05)

    add(database, receiver.url)
    receiver.before_answer = dawdle
    webhooks = Webhooks(database, SECRET, ("127.0.0.1",), try_seconds=0.5)
    started = time.monotonic()
    assert webhooks.deliver()
    assert 0.4 < time.monotonic() - started < 2
    assert waiting(database)[0] == (1, pytest.approx(10, abs=2))


def test_proxies_of_the_environment_are_not_used(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    add(database, receiver.url)
    assert Webhooks(database, SECRET, ("127.0.0.1",)).deliver()
    assert receiver.states == ["queued"]


# --- what may be told -----------------------------------------------------------------------------

INNER = [
    "http://127.0.0.1/hook",
    "https://127.0.0.1:8443/hook",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://10.0.0.7/",
    "http://172.16.3.4/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:8.8.8.8]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::a00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1]/",
    "http://[ff02::1]/",
    "http://localhost/",
    "http://LOCALHOST./",
    "http://there-is-none.invalid/",
    "http://" + "a" * 64 + ".example/",
    "http://a..b/",
]

NO_URL = [
    "",
    "hook",
    "//8.8.8.8/hook",
    "http:///hook",
    "ftp://8.8.8.8/",
    "file:///etc/passwd",
    "gopher://8.8.8.8/",
    "http://8.8.8.8:0/",
    "http://8.8.8.8:65536/",
    "http://8.8.8.8:http/",
    "http://[::1/",
    "http://8.8.8.8/\r\nX: y",
    "http://8.8.8.8/\x00",
    "https://user:password@8.8.8.8/",
    "https://user@8.8.8.8/",
    "https://8.8.8.8\\@127.0.0.1/",
]


def test_what_is_inner_or_no_url_is_refused(signing: Settings, serve: Serve) -> None:
    api = serve(signing.model_copy(update={"webhook_hosts": ("receiver.internal",)}))
    body = {"source": str(UUID(int=0))}
    for url in [*INNER, *NO_URL, f"https://8.8.8.8/{'x' * 2000}"]:
        for path in ("/jobs/pretrain", "/jobs/pretrain?dry_run=true"):
            refused = wrong(api.post(path, json=body | {"webhook_url": url}))
            assert list(refused) == ["body.webhook_url"], url
    listed = api.get("/jobs").json()
    assert listed["items"] == []


def test_an_unknown_name_and_an_inner_one_are_refused_with_the_same_words() -> None:
    said = set()
    for host in ("localhost", "there-is-none.invalid"):
        with pytest.raises(ValueError, match="STYLEFILTER_WEBHOOK_HOSTS") as refusal:
            targets.find(f"http://{host}/", ())
        said.add(str(refusal.value).replace(host, "HOST"))
    assert len(said) == 1


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://8.8.8.8/hook", "8.8.8.8"),
        ("http://8.8.8.8:8080", "8.8.8.8"),
        ("https://134744072/", "8.8.8.8"),
        ("https://[2606:4700:4700::1111]/", "2606:4700:4700::1111"),
    ],
)
def test_public_addresses_may_be_told(url: str, address: str) -> None:
    assert targets.find(url, ()).addresses == (address,)


def test_a_name_with_an_inner_address_among_others_is_not_public() -> None:
    assert targets.are_public(["8.8.8.8", "2606:4700:4700::1111"])
    assert not targets.are_public(["8.8.8.8", "127.0.0.1"])
    assert not targets.are_public(["::1", "8.8.8.8"])
    assert not targets.are_public([])


def test_the_connection_goes_to_the_addresses_that_were_checked(receiver: Receiver) -> None:
    """The name is found nowhere: whoever looked it up once more would not connect."""
    url = httpx.URL(f"http://there-is-none.invalid:{receiver.port}/hook")
    # Nobody listens at the first.
    checked = targets.Receiver(url, ("127.0.0.2", "127.0.0.1"))
    answer = checked.post(b"{}", {}, tls=httpx.create_ssl_context(), seconds=5)
    assert answer == targets.Answer(204, None)
    assert receiver.got[0].headers["host"] == f"there-is-none.invalid:{receiver.port}"
    assert receiver.got[0].path == "/hook"


def test_an_allowed_host_may_be_anywhere_but_must_be_named_as_it_is() -> None:
    assert "127.0.0.1" in targets.find("http://localhost:1/", ("localhost",)).addresses
    assert targets.find("http://LocalHost/", ("localhost",)).host == "localhost"
    for other in ("http://127.0.0.1/", "http://localhost.localdomain/", "http://127.1/"):
        with pytest.raises(ValueError, match="STYLEFILTER_WEBHOOK_HOSTS"):
            targets.find(other, ("localhost",))
    with pytest.raises(ValueError, match="cannot be found"):
        targets.find("http://there-is-none.invalid/", ("there-is-none.invalid",))


def test_an_address_that_became_an_inner_one_is_not_told(
    database: Database, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """As after DNS rebinding: the URL was taken once, and now leads to this machine."""
    add(database, f"http://localhost:{receiver.port}/")
    assert Webhooks(database, SECRET, ()).deliver()
    assert receiver.got == []
    assert waiting(database)[0] == (1, pytest.approx(10, abs=2))
    assert "STYLEFILTER_WEBHOOK_HOSTS" in caplog.text


def test_without_a_secret_there_are_no_webhooks(api: httpx.Client) -> None:
    body = {"source": str(UUID(int=0)), "webhook_url": "https://8.8.8.8/hook"}
    refused = wrong(api.post("/jobs/pretrain", json=body))
    assert list(refused) == ["body.webhook_url"]
    assert "STYLEFILTER_WEBHOOK_SECRET_FILE" in refused["body.webhook_url"]


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_c2hvcnQ=", "a pass phrase of many words, but no base64", "ü" * 40]
)
def test_a_secret_that_is_none_stops_the_service(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secret"
    file.write_text(text)
    with pytest.raises(ValueError, match="must hold whsec_"):
        _ = Settings(webhook_secret_file=file).webhook_secret


def test_the_secret_and_the_hosts_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET_TEXT)
    monkeypatch.setenv("STYLEFILTER_WEBHOOK_SECRET_FILE", str(file))
    monkeypatch.setenv("STYLEFILTER_WEBHOOK_HOSTS", "Hooks.internal, 10.0.0.7,")
    assert Settings().webhook_secret == SECRET
    assert Settings().webhook_hosts == ("hooks.internal", "10.0.0.7")


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate of the name localhost, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True)
    file = folder / "both.pem"
    file.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return file


@pytest.mark.parametrize(
    ("host", "trusted", "arrives"),
    [("localhost", True, True), ("127.0.0.1", True, False), ("localhost", False, False)],
)
def test_the_name_is_verified_though_the_address_is_connected_to(
    database: Database,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    trusted: bool,
    arrives: bool,
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    with listening(context) as receiver:
        add(database, f"https://{host}:{receiver.port}/")
        assert Webhooks(database, SECRET, ("localhost", "127.0.0.1")).deliver()
        assert len(receiver.got) == arrives
        assert names == ["localhost" if host == "localhost" else None]
    assert waiting(database)[0][0] == (0 if arrives else 1)
