"""Takes the labels over that still apply to a new version of a dataset."""

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.database import Database
from app.labels.counts import counted
from app.labels.points import Place, pointed, stored_points
from app.labels.stored import stored_labels
from app.tables import ChangeKind, Dataset, Image, LabelChange
from models.data.intake.store import StoredTiles
from models.data.labels import LabelState
from models.data.sections import Section

_IMAGES_AT_ONCE = 5000


def keep(database: Database, previous: Dataset, dataset: Dataset, tiles: StoredTiles) -> int:
    """Give images of a hidden dataset the labels of those of ``previous``; return their number.

    ``tiles`` are the images of the hidden dataset.

    A label is kept if both datasets have a section of this name, an image of the same window in
    it, and a class of this name. A point is kept if both have the class, and the section in the
    same size; the image that holds it is then present for the class.
    """
    place = _Places(tiles)
    old_names = [section.name for section in previous.sections]
    kept, after = 0, -1
    while True:
        with database.reading() as session:
            images = _labelled(session, previous.id, after)
        if not images:
            break
        after = images[-1].n
        alike: dict[tuple[tuple[str, str], ...], list[int]] = defaultdict(list)
        for image in images:
            n = place.of(old_names[image.section], image)
            labels = stored_labels(image.labels)
            still = {name: word for name, word in labels.items() if name in dataset.class_names}
            if n is not None and still:
                alike[tuple(sorted(still.items()))].append(n)
        with database.session() as session:
            for items, numbers in alike.items():
                these = Image.dataset_id == dataset.id, Image.n.in_(numbers)
                session.execute(update(Image).where(*these).values(labels=dict(items)))
            session.commit()
        kept += sum(map(len, alike.values()))
        database.give_way()
    points = _keep_points(database, previous, dataset, place)
    if kept or points:
        _record(database, dataset.id, kept, points)
    return kept


def _keep_points(database: Database, previous: Dataset, dataset: Dataset, place: "_Places") -> int:
    """Give a hidden dataset the points of the one before, and return their number."""
    found: dict[int, dict[Place, LabelState]] = defaultdict(dict)
    with database.reading() as session:
        for _, number, points in session.execute(pointed(previous.id)):
            for (y, x, name), word in stored_points(points).items():
                n = place.holding(previous.sections[number], y, x)
                if n is not None and name in dataset.class_names:
                    found[n][y, x, name] = word
    with database.session() as session:
        for n, of_image in found.items():
            image = session.get_one(Image, (dataset.id, n))
            present = {name for (_, _, name), word in of_image.items() if word == "present"}
            image.labels = image.labels | dict.fromkeys(present, LabelState.PRESENT)
            image.points = [[*where, word] for where, word in sorted(of_image.items())]
        session.commit()
    return sum(map(len, found.values()))


def _labelled(session: Session, dataset_id: UUID, after: int) -> Sequence[Image]:
    query = select(Image).where(Image.dataset_id == dataset_id, Image.n > after)
    return session.scalars(query.order_by(Image.n).limit(_IMAGES_AT_ONCE)).all()


def _record(database: Database, dataset_id: UUID, kept: int, points: int) -> None:
    with database.session() as session:
        session.add(
            LabelChange(
                dataset_id=dataset_id,
                version=1,
                kind=ChangeKind.VERSION,
                changed_images=kept,
                changed_points=points,
                counts=counted(session, dataset_id),
                complete=True,
            )
        )
        session.commit()


class _Places:
    """The numbers of a dataset's images, by section and window."""

    def __init__(self, tiles: StoredTiles) -> None:
        self._tile_px = tiles.tile_px
        self._sections = {section.name: section for section in tiles.sections}
        self._first: dict[int, int] = {}
        self._corners: dict[int, array[int]] = {}
        for n, tile in enumerate(tiles):
            self._first.setdefault(tile.section, n)
            # Images come row by row, so these numbers rise; eight bytes each, if there are many.
            self._corners.setdefault(tile.section, array("q")).append(_corner(tile.y0, tile.x0))

    def of(self, section_name: str, image: Image) -> int | None:
        """Return the number of the image with the window of ``image``; None if there is none."""
        section = self._sections.get(section_name)
        if section is None or section.index not in self._first:
            return None
        corners, corner = self._corners[section.index], _corner(image.y0, image.x0)
        place = bisect_left(corners, corner)
        side = self._tile_px or max(section.height, section.width)
        size = min(side, section.height - image.y0), min(side, section.width - image.x0)
        if place == len(corners) or corners[place] != corner:
            return None
        return self._first[section.index] + place if size == (image.height, image.width) else None

    def holding(self, old: Section, y: int, x: int) -> int | None:
        """Return the number of the image that holds a pixel of an old section; None if none does.

        In a section of another size the pixel is another one.
        """
        section = self._sections.get(old.name)
        if section is None or (section.height, section.width) != (old.height, old.width):
            return None
        side = self._tile_px or max(section.height, section.width)
        corner = _corner(y // side * side, x // side * side)
        corners = self._corners.get(section.index, array("q"))
        place = bisect_left(corners, corner)
        found = place < len(corners) and corners[place] == corner
        return self._first[section.index] + place if found else None


def _corner(y0: int, x0: int) -> int:
    return y0 << 32 | x0
