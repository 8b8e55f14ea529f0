"""Counts of labels: after each change they are those of all images."""

from uuid import UUID

import httpx
import numpy as np
import pytest
from sqlalchemy import null, update

from app.database import Database
from app.labels.changes import AskedChange, counts, write
from app.labels.counts import Counts, counted
from app.labels.points import Wanted
from app.tables import ChangeKind, LabelChange
from models.data.labels import LabelState
from tests.app.files import grey, png, registered, upload


def without_zeros(found: Counts) -> Counts:
    kept = {name: {word: n for word, n in words.items() if n} for name, words in found.items()}
    return {name: words for name, words in kept.items() if words}


@pytest.fixture
def dataset(api: httpx.Client) -> UUID:
    return UUID(registered(upload(api, {"a.png": png(grey(1, 64, 64))}, tile_px=16))["id"])


def test_counts_follow_each_change(database: Database, dataset: UUID) -> None:
    rng = np.random.default_rng(0)
    states = list(LabelState)
    for step in range(12):
        wanted = {
            int(n): {
                name: states[rng.integers(3)]
                for name in ("background", "organelle")
                if rng.integers(2)
            }
            for n in rng.choice(16, rng.integers(1, 9), replace=False)
        }
        write(database, dataset, Wanted(wanted), ChangeKind.PUT, AskedChange())
        if step == 6:  # as an earlier version wrote changes
            with database.session() as session:
                session.execute(update(LabelChange).values(counts=null()))
                session.commit()
        with database.reading() as session:
            found = counts(session, dataset)
            assert without_zeros(found) == without_zeros(counted(session, dataset)) != {}
