"""Migration 0008: what datasets of earlier versions are given, from the rows of their images."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import Uuid, column, select, table, update
from sqlalchemy.orm import undefer

from app.columns import Json
from app.database import Database
from app.settings import Settings
from app.tables import Dataset, Image
from tests.old_state import REVISION, expected

_DATASETS = table("datasets", column("id", Uuid()), column("name"), column("digest"))
_IMAGES = table("images", column("dataset_id", Uuid()), column("class_pixels", Json))


@pytest.fixture
def old(old_state: Settings) -> Iterator[Database]:
    with closing(Database(old_state.database)) as database:
        yield database


def datasets(database: Database) -> dict[UUID, Dataset]:
    with database.reading() as session:
        found = session.scalars(select(Dataset).options(undefer("*"))).all()
    return {dataset.id: dataset for dataset in found}


def test_the_sums_of_sections_are_those_of_their_images(old: Database) -> None:
    old.migrate()
    ids = expected().datasets
    found = datasets(old)
    for name in ("source", "target"):
        dataset = found[ids[name]]
        sums: dict[int, list[int]] = {}
        with old.reading() as session:
            for image in session.scalars(select(Image).where(Image.dataset_id == dataset.id)):
                if image.class_pixels is not None:
                    earlier = sums.get(image.section, [0] * len(dataset.class_names))
                    sums[image.section] = [
                        a + b for a, b in zip(earlier, image.class_pixels, strict=True)
                    ]
        assert len(sums) == dataset.num_masks > 0
        assert dataset.section_pixels == [sums.get(n) for n in range(dataset.num_sections)]
    assert found[ids["deleted"]].section_pixels == [None] * found[ids["deleted"]].num_sections


def test_the_first_of_equal_datasets_is_found_by_its_content(old: Database) -> None:
    ids = expected().datasets
    source, target = ids["source"], ids["target"]
    first = select(_DATASETS.c.name, _DATASETS.c.digest).where(_DATASETS.c.id == source)
    with old.session() as session:
        name, digest = session.execute(first).one()
        equal = update(_DATASETS).where(_DATASETS.c.id == target)
        session.execute(equal.values(name=name, digest=digest))
        session.commit()
    old.migrate()
    found = datasets(old)
    identity = hashlib.sha256(f"{name}\n{digest}".encode()).hexdigest()
    assert {name: found[ids[name]].identity for name in ("source", "target", "deleted")} == {
        "source": identity,
        "target": None,
        "deleted": None,
    }


def test_images_without_numbers_count_for_nothing(old: Database) -> None:
    source = expected().datasets["source"]
    with old.session() as session:
        session.execute(
            update(_IMAGES).where(_IMAGES.c.dataset_id == source).values(class_pixels=["x"])
        )
        session.commit()
    old.migrate()
    dataset = datasets(old)[source]
    assert dataset.section_pixels == [None] * dataset.num_sections
    command.downgrade(old.alembic_config(), REVISION)
