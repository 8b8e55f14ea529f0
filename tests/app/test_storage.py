"""The data folder."""

import os
import time

import httpx

from app.settings import Settings
from app.storage import Storage
from tests.app.conftest import Serve


def test_what_died_a_day_ago_is_swept_when_the_service_starts(
    settings: Settings, serve: Serve
) -> None:
    incoming = Storage(settings.data_folder).incoming
    old, young, probe = incoming / "old", incoming / "young", incoming / "probe-old"
    for folder in (old, young):
        (folder / "images").mkdir(parents=True)
    probe.touch()
    yesterday = time.time() - 25 * 3600
    for path in (old, probe):
        os.utime(path, (yesterday, yesterday))
    client: httpx.Client = serve(settings)
    assert client.get("/livez").status_code == 200
    assert list(incoming.iterdir()) == [young]
