"""A receiver, a sender and settings for the tests of webhooks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.database import Database
from app.settings import Settings
from app.webhooks.delivery import Webhooks
from tests.app.webhooks.receivers import SECRET, SECRET_TEXT, Receiver, listening


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
