"""Migration 0014: the numbers of images that datasets of earlier versions are given."""

from collections import Counter
from contextlib import closing

from sqlalchemy import select
from sqlalchemy.orm import undefer

from app.database import Database
from app.settings import Settings
from app.tables import Dataset, Image
from tests.old_state import expected


def test_datasets_get_the_numbers_of_their_images(old_state: Settings) -> None:
    with closing(Database(old_state.database)) as database:
        database.migrate()
        with database.reading() as session:
            for name in ("source", "target", "deleted"):
                dataset_id = expected().datasets[name]
                dataset = session.get_one(Dataset, dataset_id, options=[undefer("*")])
                images = session.scalars(select(Image).where(Image.dataset_id == dataset_id)).all()
                of_sections = Counter(image.section for image in images)
                lacking = Counter(
                    n
                    for image in images
                    for n, count in enumerate(image.class_pixels or ())
                    if count == 0
                )
                assert dataset.section_images == [
                    of_sections[n] for n in range(dataset.num_sections)
                ]
                assert dataset.images_without == [
                    lacking[n] for n in range(len(dataset.class_names))
                ]
                assert bool(images) == (name != "deleted")
