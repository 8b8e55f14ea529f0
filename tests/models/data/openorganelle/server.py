"""A web server of a folder, in a thread, which answers range requests and counts what it sends."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Served:
    """The address of a server, and the key and the bytes of each GET request that it got."""

    url: str = ""
    sent: list[tuple[str, int]] = field(default_factory=list)
    before: Callable[[str], None] = lambda _: None
    """Is called with the key of each GET request before it is answered."""

    def voxels(self) -> list[int]:
        """Return the bytes of each request for voxels, not for metadata; 0 for a missing file."""
        return [num for key, num in self.sent if re.search(r"(/|^)\d+$", key)]


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """Serve a folder at 127.0.0.1 until the block ends."""
    state, lock = Served(), Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            key = unquote(urlsplit(self.path).path).lstrip("/")
            if body:
                state.before(key)
            path = folder / key
            data = path.read_bytes() if path.is_file() else None
            status = HTTPStatus.NOT_FOUND if data is None else HTTPStatus.OK
            part = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            size = len(data or b"")
            self.send_response(HTTPStatus.PARTIAL_CONTENT if part and data else status)
            if part and data:
                first = int(part[1]) if part[1] else max(0, size - int(part[2]))
                last = min(int(part[2]), size - 1) if part[1] and part[2] else size - 1
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
                data = data[first : last + 1]
            self.send_header("Content-Length", str(len(data or b"")))
            self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            self.end_headers()
            if body:
                with lock:
                    state.sent.append((key, len(data or b"")))
                self.wfile.write(data or b"")

        def log_message(self, *_: Any) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
