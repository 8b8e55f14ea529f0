"""The part of ``stylefilter measure data`` that registers very many tiles, and asks for them."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles
from uuid import UUID, uuid4

import numpy as np
from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.cli.measure.data_figures import FlatFigures, Plan, TilesFigures
from app.cli.measure.intake import MB, memory_of, seconds
from app.database import Database
from app.datasets import leftovers
from app.datasets import service as datasets
from app.datasets.registrar import Registrar
from app.datasets.schemas import DatasetCreate
from app.labels import service as labels
from app.labels.changes import AskedChange
from app.settings import Settings
from app.storage import Storage
from app.tables import IdempotencyKey
from models.data.intake.inputs import Inputs
from models.data.readers.limits import Array
from models.data.readers.stack import Ask, Stack

_TILE_PX = 16
_SECTIONS = 8
_FEW = 1000
_PAGE = 100
_STEP = 500
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class _Tiled:
    """Images, or masks, of a number of tiles; each section is made when it is read."""

    num_tiles: int
    name: str = "tiled.npy"
    stem: str = "tiled"

    @contextmanager
    def open(self, ask: Ask) -> Iterator[Stack]:
        yield Stack(self._sections(ask), _SECTIONS)

    def _sections(self, ask: Ask) -> Iterator[Array]:
        rng = np.random.default_rng(0)
        tiles = self.num_tiles // _SECTIONS
        across = next(n for n in range(int(tiles**0.5), 0, -1) if tiles % n == 0)
        shape = (_TILE_PX * across, _TILE_PX * (tiles // across))
        for _ in range(_SECTIONS):
            yield rng.integers(0, 256 if ask.purpose == "image" else 2, shape, np.uint8)

    def again(self) -> None:
        return None


def measure_tiles(url: str, folder: Path, plan: Plan) -> TilesFigures:
    """Register a dataset of many tiles in an empty database; time what is asked of it and of few.

    Raises:
        ValueError: the database holds datasets already.
    """
    settings = Settings(database_url=url, data_folder=folder)
    database, storage = Database(settings.database), Storage(folder)
    database.migrate()
    try:
        with database.reading() as session:
            if datasets.list_datasets(session, 1, None).items:
                raise ValueError("the database holds datasets already: name an empty database")
        few = Registrar(database, storage, settings).register(_request(_FEW), _inputs(_FEW))
        many, took, peak, longest = _register(settings, database, plan.tiles)
        flat = list(_flat(database, (few.dataset_id, many), plan.asked))
        deleted = seconds(lambda: datasets.remove(database, many))
        removed = seconds(lambda: leftovers.complete_deletions(database, storage))
    finally:
        database.close()
    return TilesFigures(
        database=database.engine.dialect.name,
        few=_FEW,
        many=plan.tiles,
        seconds=took,
        peak_mb=peak / MB,
        longest_write_seconds=longest,
        seconds_deleted=deleted,
        seconds_removed=removed,
        flat=flat,
    )


def _request(number: int) -> DatasetCreate:
    return DatasetCreate(
        name=f"{number} tiles",
        class_names=["background", "organelle"],
        pixel_size_nm=4.0,
        tile_px=_TILE_PX,
    )


def _inputs(number: int) -> Inputs:
    return Inputs([_Tiled(number)], [_Tiled(number)])


def _register(
    settings: Settings, database: Database, number: int
) -> tuple[UUID, float, int, float]:
    """Register in another process; return the dataset, seconds, bytes, and the longest write."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_register_and_tell, args=(settings, number, sender))
    process.start()
    sender.close()
    longest = 0.0
    try:
        while not receiver.poll(_PAUSE_SECONDS):
            longest = max(longest, seconds(lambda: _write(database)))
        dataset_id, took, peak = receiver.recv()
    finally:
        process.join()
    return dataset_id, took, peak, longest


def _register_and_tell(settings: Settings, number: int, sender: Connection) -> None:
    database, storage = Database(settings.database), Storage(settings.data_folder)
    start = time.perf_counter()
    found = Registrar(database, storage, settings).register(_request(number), _inputs(number))
    took = time.perf_counter() - start
    database.close()
    sender.send((found.dataset_id, took, memory_of("VmHWM")))


def _write(database: Database) -> None:
    with database.session() as session:
        session.execute(insert(IdempotencyKey).values(key=uuid4().hex, request_digest=""))
        session.commit()


def _flat(database: Database, both: tuple[UUID, UUID], times_asked: int) -> Iterator[FlatFigures]:
    """Time each request for the dataset with few images and for that with many, in turn."""
    asked = [_requests(database, dataset_id) for dataset_id in both]
    for name in asked[0]:
        times: list[list[float]] = [[], []]
        for _ in range(times_asked):
            for requests, taken in zip(asked, times, strict=True):
                taken.append(1000 * seconds(requests[name]))
        ms_few, ms_many = (quantiles(taken, n=20)[-1] for taken in times)
        yield FlatFigures(request=name, ms_few=ms_few, ms_many=ms_many, ratio=ms_many / ms_few)


def _requests(database: Database, dataset_id: UUID) -> dict[str, Callable[[], object]]:
    """Return what is asked of a dataset, by name."""
    with database.reading() as session:
        last = datasets.get(session, dataset_id).num_images - 1
        cursor = _late_cursor(session, dataset_id, last)
    turns = cycle(("present", "absent"))

    def read(ask: Callable[[Session], object]) -> Callable[[], object]:
        def asked() -> object:
            with database.reading() as session:
                return ask(session)

        return asked

    def label() -> object:
        classes = {"organelle": next(turns)}
        entries = [{"image": last - n, "classes": classes} for n in range(_PAGE)]
        return labels.put_json(
            database, dataset_id, json.dumps({"labels": entries}).encode(), AskedChange()
        )

    return {
        "list datasets": read(lambda s: datasets.list_datasets(s, _PAGE, None)),
        "show the dataset": read(lambda s: datasets.report(s, dataset_id)),
        "list images, near the end": read(
            lambda s: datasets.list_images(s, dataset_id, _PAGE, cursor)
        ),
        "list labels, near the end": read(lambda s: labels.read(s, dataset_id, _PAGE, cursor)),
        "label 100 images, and count labels": label,
    }


def _late_cursor(session: Session, dataset_id: UUID, last: int) -> str | None:
    """Return a cursor after which at least a page of images follows."""
    cursor = found = None
    for _ in range(max(1, (last - _PAGE) // _STEP)):
        found = cursor
        _, cursor = datasets.image_rows(session, dataset_id, _STEP, cursor)
        session.expunge_all()
    return cursor or found
