"""A receiver of webhooks on a real socket, and the rows that wait for it."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from app.database import Database, now_plus
from app.jobs import orders
from app.tables import Job, JobKind, WebhookDelivery
from models.config.presets import preset

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


def add(database: Database, url: str) -> UUID:
    """A job that was submitted and cancelled: two state events."""
    with database.session() as session:
        job = Job(
            kind=JobKind.ADAPT, config=preset("smoke").model_dump(mode="json"), webhook_url=url
        )
        session.add(job)
        session.flush()
        orders.submitted(session, job)
        assert orders.cancel(session, job.id)
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
