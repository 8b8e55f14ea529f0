"""Tells what a dataset holds and what looks wrong, before anything is trained on it."""

from collections import Counter
from pathlib import Path
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.datasets.domains import DatasetMissing, load_domain
from app.datasets.schemas import NoteRead
from app.errors import NotFound
from app.inspection.schemas import (
    Bin,
    ClassFrequency,
    DatasetInspection,
    SizeCount,
)
from app.storage import Storage
from app.tables import Dataset
from models.data.domain import Domain
from models.data.intake.grey_values import Histogram
from models.data.intake.suspicions import suspicions
from models.data.sections import Section

# autoescape: names are data, and a name may hold markup.
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def inspect(session: Session, storage: Storage, dataset_id: UUID) -> DatasetInspection:
    """Describe a dataset; NotFound if there is none, or if its files are gone."""
    dataset = datasets.get(session, dataset_id)
    domain = open_domain(session, storage, dataset_id)
    frequencies = _frequencies(dataset)
    sections, notes, histogram = dataset.sections, dataset.notes, dataset.histogram
    facts = {
        name: getattr(dataset, name)
        for name in (
            "id",
            "name",
            "num_sections",
            "num_masks",
            "num_images",
            "dtype",
            "pixel_size_from",
        )
    }
    window = (dataset.window_low, dataset.window_high)
    session.close()  # reading pixels takes a while, and needs no connection
    sizes = Counter((section.height, section.width) for section in sections)
    return DatasetInspection(
        **facts,
        pixel_size_nm=domain.info.pixel_size_nm,
        intensity_window=window,
        histogram=_bars(histogram),
        sizes=[
            SizeCount(height=height, width=width, sections=count)
            for (height, width), count in sizes.most_common()
        ],
        classes=frequencies,
        splits=dict(Counter(section.split for section in sections)),
        groups=dict(Counter(section.group for section in sections if section.group is not None)),
        touching_splits=_touching(sections),
        remarks=[NoteRead.model_validate(note) for note in (*notes, *suspicions(domain))],
    )


def open_domain(session: Session, storage: Storage, dataset_id: UUID) -> Domain:
    """Open a dataset at its own pixel size; NotFound if it or its files are gone."""
    try:
        return load_domain(session, storage, dataset_id)
    except DatasetMissing as error:
        raise NotFound(str(error)) from error


def page(found: DatasetInspection) -> str:
    """Write the report as a page; its picture is the contact sheet beside it."""
    top = max((each.pixels for each in found.histogram), default=1)
    return _PAGES.get_template("report.html").render(found=found, top=top)


def _frequencies(dataset: Dataset) -> list[ClassFrequency]:
    totals = datasets.class_pixels(dataset)
    everything = max(1, sum(totals.values()))
    return [
        ClassFrequency(name=name, pixels=total, share=total / everything, images_without=missing)
        for (name, total), missing in zip(totals.items(), dataset.images_without, strict=True)
    ]


def _bars(histogram: Histogram | None) -> list[Bin]:
    """Return the recorded histogram; empty for a dataset of an earlier version, which has none."""
    if histogram is None:
        return []
    low, step = histogram.low, histogram.step
    return [
        Bin(low=low + number * step, high=low + (number + 1) * step, pixels=count)
        for number, count in enumerate(histogram.counts)
    ]


def _touching(sections: tuple[Section, ...]) -> list[tuple[str, str]]:
    """Return neighbours of one group that train and are scored, with no section between them."""
    return [
        (first.name, second.name)
        for first, second in zip(sections, sections[1:], strict=False)
        if first.group == second.group
        and first.split != second.split
        and "unused" not in (first.split, second.split)
    ]
