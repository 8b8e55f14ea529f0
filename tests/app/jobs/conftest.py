"""A source, a target and trained models for the tests of jobs."""

from uuid import UUID

import httpx
import pytest

from app.database import Database
from app.tables import ModelKind
from tests.app.files import grey, mask, png, registered, upload
from tests.app.records import add_job, add_model


@pytest.fixture
def source(api: httpx.Client) -> str:
    images = {f"{n}.png": png(grey(n)) for n in range(2)}
    splits = {"train": ["0"], "test": ["1"]}
    masks = {"0.png": png(mask())}
    return str(registered(upload(api, images, masks, splits=splits))["id"])


@pytest.fixture
def target(api: httpx.Client) -> str:
    return str(registered(upload(api, {"t.png": png(grey(9))}, tile_px=16))["id"])


@pytest.fixture
def style(database: Database, source: str, target: str) -> str:
    job = add_job(database, source, target)
    return str(add_model(database, job, source, kind=ModelKind.STYLE, target_id=UUID(target)))


@pytest.fixture
def segmenter(database: Database, source: str) -> str:
    return str(add_model(database, add_job(database, source), source))
