"""Large files arrive whole, over connections that break again and again."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from app.client.client import Client
from app.client.connection import ApiError
from app.client.resumable import PIECE_BYTES, PieceRefused, send_file
from app.datasets.schemas import DatasetCreate
from app.settings import Settings
from app.storage import Storage
from tests.app.conftest import Serve
from tests.app.files import METADATA, grey, mask, png, tiff

DATASET = DatasetCreate.model_validate(METADATA)


@pytest.fixture
def database_url(tmp_path: Path, sqlite_template: Path) -> str:
    """One engine: uploads are files."""
    path = tmp_path / "stylefilter.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


@contextmanager
def breaking(api: httpx.Client, after_bytes: int, times: int) -> Iterator[str]:
    """The address of a proxy that breaks a connection after so many bytes, as many times."""
    left, broken = [times], threading.Event()

    def pump(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        try:
            while data := source.recv(1 << 16):
                passed += len(data)
                if limit is not None and passed > limit:
                    broken.set()
                    break
                sink.sendall(data)
        except OSError:
            pass  # the other direction has closed both ends
        finally:
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((api.base_url.host, api.base_url.port or 80))
            limit = after_bytes if left[0] > 0 else None
            left[0] -= 1
            for ends in ((client, server, limit), (server, client, None)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    assert broken.is_set()


def test_a_file_arrives_over_connections_that_break(
    api: httpx.Client, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "volume.tif"
    data = os.urandom(2 * PIECE_BYTES + 12345)
    path.write_bytes(data)
    told: list[int] = []
    with (
        breaking(api, PIECE_BYTES + PIECE_BYTES // 2, times=3) as url,
        httpx.Client(base_url=url) as http,
    ):
        upload = send_file(http, path, patience_seconds=60, sent=told.append)
    folder = Storage(settings.data_folder).uploads / str(upload)
    assert (folder / "data").read_bytes() == data
    assert told[-1] == len(data)
    assert told == sorted(told)


def test_a_service_that_stays_away_is_given_up(api: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(bytes(1000))
    with (
        breaking(api, 500, times=10**6) as url,
        httpx.Client(base_url=url) as http,
        pytest.raises(httpx.HTTPError),
    ):
        send_file(http, path, patience_seconds=0)


def test_a_large_dataset_is_sent_in_pieces(
    api: httpx.Client, settings: Settings, tmp_path: Path
) -> None:
    files = {"images": tmp_path / "volume.png", "masks": tmp_path / "masks" / "volume.png"}
    files["masks"].parent.mkdir()
    files["images"].write_bytes(png(grey(1)))
    files["masks"].write_bytes(png(mask()))
    with Client(str(api.base_url), pieces_from_bytes=100) as client:
        report = client.upload_dataset(DATASET, [files["images"]], [files["masks"]])
    assert [(s.name, s.has_mask) for s in report.sections] == [("volume", True)]
    assert list(Storage(settings.data_folder).uploads.iterdir()) == []


def test_files_that_are_refused_are_named(settings: Settings, serve: Serve, tmp_path: Path) -> None:
    small = serve(settings.model_copy(update={"max_upload_bytes": 1000}))
    path = tmp_path / "volume.tif"
    path.write_bytes(tiff(grey(1)))
    with pytest.raises(PieceRefused):
        send_file(small, path, patience_seconds=0)
    with Client(str(small.base_url), pieces_from_bytes=100) as client:
        with pytest.raises(ApiError, match=r"volume\.tif"):
            client.upload_dataset(DATASET, [path])
        with pytest.raises(ApiError, match=r"none\.tif"):
            client.upload_dataset(DATASET, [tmp_path / "none.tif"])
