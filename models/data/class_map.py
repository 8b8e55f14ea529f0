"""Let a dataset be used by a job with other classes: renamed, in another order, or merged.

Legend: C classes of the job, D classes of the dataset, H height, W width.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from models.data.description import IGNORED
from models.data.domain import IGNORE, Domain, Point
from models.data.labels import ABSENT, PRESENT, UNKNOWN


@dataclass(frozen=True)
class ClassMap:
    """Maps the class ids of a dataset to those of a job.

    ``class_names`` are the job's (C). ``ids`` (D) has the job's id of each class of the dataset, or
    255 for a class whose pixels are ignored.
    """

    class_names: tuple[str, ...]
    ids: tuple[int, ...]

    @classmethod
    def between(
        cls, own: Sequence[str], wanted: Sequence[str], meanings: Mapping[str, str] | None = None
    ) -> "ClassMap":
        """Map the classes ``own`` of a dataset to the classes ``wanted`` by a job.

        ``meanings`` names a class of the job, or ``ignore``, for classes of the dataset. A class
        that it leaves out is the job's class of the same name. Several classes may have one
        meaning, and a class of the job may have none.

        Raises:
            ValueError: a name is unknown, a class has no meaning, or all are ignored.
        """
        meanings = meanings or {}
        for name, meaning in meanings.items():
            if name not in own:
                raise ValueError(f"{name!r} is none of its classes, which are {', '.join(own)}")
            if meaning not in (*wanted, IGNORED):
                raise ValueError(
                    f"{name!r} cannot be {meaning!r}: the classes of the job are "
                    f"{', '.join(wanted)}, and {IGNORED!r} leaves a class out"
                )
        ids = tuple(cls._id(meanings.get(name, name), wanted) for name in own)
        unknown = [name for name, number in zip(own, ids, strict=True) if number is None]
        if unknown:
            raise ValueError(
                f"it has the classes {', '.join(own)}, and this job has the classes "
                f"{', '.join(wanted)}: say what {', '.join(unknown)} is, by the name of a class of "
                f"the job or {IGNORED!r}"
            )
        known = tuple(number for number in ids if number is not None)
        if set(known) == {IGNORE}:
            raise ValueError("all of its classes are ignored: name the meaning of one at least")
        return cls(tuple(wanted), known)

    @staticmethod
    def _id(meaning: str, wanted: Sequence[str]) -> int | None:
        if meaning in wanted:
            return wanted.index(meaning)
        return IGNORE if meaning == IGNORED else None

    @property
    def is_identity(self) -> bool:
        """Tell whether every class keeps its id; its name may be another."""
        return self.ids == tuple(range(len(self.class_names)))

    @property
    def missing(self) -> tuple[str, ...]:
        """The classes of the job that no class of the dataset is."""
        return tuple(n for number, n in enumerate(self.class_names) if number not in self.ids)

    def labels(self, codes: Sequence[int]) -> tuple[int, ...]:
        """Return the labels of the job's classes (C) from those of the dataset's (D).

        Of several classes that are one for the job, one that is present makes it present, and it is
        absent if all are. A missing class is unknown.
        """
        mapped = []
        for number in range(len(self.class_names)):
            own = [code for code, its in zip(codes, self.ids, strict=True) if its == number]
            absent = ABSENT if own and all(code == ABSENT for code in own) else UNKNOWN
            mapped.append(PRESENT if PRESENT in own else absent)
        return tuple(mapped)

    def points(self, points: Iterable[Point]) -> tuple[Point, ...]:
        """Return points in the job's classes, without those of classes that are ignored.

        "Not here" is left out too where several classes are one for the job: it may be another.
        """
        return tuple(
            replace(point, number=number)
            for point in points
            if (number := self.ids[point.number]) != IGNORE
            and (point.present or self.ids.count(number) == 1)
        )

    def unannotated(self, ids: Collection[int]) -> tuple[int, ...]:
        """Return the ids of the job's classes of which masks say nothing, or not all.

        ``ids`` are those of the dataset's classes. Masks say nothing of a missing class.
        """
        return tuple(
            number
            for number in range(len(self.class_names))
            if number not in self.ids or any(self.ids[own] == number for own in ids)
        )


def mapped(domain: Domain, classes: ClassMap) -> Domain:
    """Return a domain with the classes of a job: its masks, labels and names."""
    if domain.info.class_names == classes.class_names and classes.is_identity:
        return domain
    info = replace(domain.info, class_names=classes.class_names)
    if not classes.is_identity:
        # Other masks and labels are other data: stages must not take each other's results.
        digest = f"{info.digest} with the class ids {classes.ids}"
        info = replace(info, class_ids=classes.ids, digest=digest)
    tiles = [
        replace(tile, labels=classes.labels(tile.labels), points=classes.points(tile.points))
        for tile in domain.tiles
    ]
    sections = [
        replace(section, unannotated=classes.unannotated(section.unannotated or ()))
        for section in domain.sections
    ]
    return Domain(domain.store, info, sections, tiles, working_nm=domain.working_nm)
