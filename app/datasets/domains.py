"""Open registered datasets as the domains that training reads."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from app.storage import Storage
from app.tables import Dataset, Image
from models.data.domain import Domain, DomainInfo, Point, Tile
from models.data.labels import LabelState, label_codes
from models.data.splits import SectionLists, with_splits


class DatasetMissing(ValueError):
    """A dataset of the job was deleted, or its files are gone."""


def load_domain(
    session: Session,
    storage: Storage,
    dataset_id: UUID,
    *,
    working_nm: float | None = None,
    splits: SectionLists | None = None,
) -> Domain:
    """Open a registered dataset with its present labels, at ``working_nm`` nanometres per pixel.

    ``splits`` replaces the splits that it was registered with.

    Raises:
        DatasetMissing: it was deleted, or its files are gone.
    """
    dataset = session.get(Dataset, dataset_id, options=[undefer(Dataset.sections)])
    folder = storage.dataset(dataset_id)
    if dataset is None or dataset.hidden or dataset.deleted_at is not None:
        raise DatasetMissing(f"dataset {dataset_id} was deleted: register it again")
    if not folder.is_dir():
        raise DatasetMissing(
            f"dataset {dataset_id} has no files at {folder}: if the data folder is not mounted "
            "there, mount it and retry the job; otherwise register the dataset again"
        )
    info = DomainInfo(
        name=dataset.name,
        class_names=tuple(dataset.class_names),
        pixel_size_nm=dataset.pixel_size_nm,
        intensity_window=(dataset.window_low, dataset.window_high),
        digest=dataset.digest,
    )
    sections = dataset.sections if splits is None else with_splits(dataset.sections, splits)
    # In the order of their numbers: of two tiles that overlap the later one prevails.
    query = select(Image).where(Image.dataset_id == dataset_id).order_by(Image.n)
    tiles = [_tile(image, info.class_names) for image in session.scalars(query)]
    return Domain(folder, info, sections, tiles, working_nm=working_nm)


def _tile(image: Image, class_names: tuple[str, ...]) -> Tile:
    return Tile(
        section=image.section,
        y0=image.y0,
        x0=image.x0,
        height=image.height,
        width=image.width,
        labels=label_codes(image.labels, class_names),
        points=tuple(
            Point(y, x, class_names.index(name), word == LabelState.PRESENT)
            for y, x, name, word in image.points or ()
        ),
    )
