"""Read what annotators noted beside their labels: what they annotated, and what values mean."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from models.data.openorganelle.classes import ClassTable
from models.data.openorganelle.masks import Presence
from models.data.openorganelle.multiscale import Attributes
from models.data.readers.limits import Array


class _Loose(BaseModel):
    """Others write these attributes, with fields of theirs beside the ones that are read."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Type(_Loose):
    type: Literal["semantic_segmentation", "instance_segmentation"] = "semantic_segmentation"
    encoding: dict[Literal["absent", "present", "unknown"], int] = Field(default_factory=dict)


class _Annotation(_Loose):
    class_names: tuple[str, ...] | None = None
    annotation_type: _Type = _Type()
    complement_counts: dict[Literal["absent", "present", "unknown"], int] | None = None


class _Cellmap(_Loose):
    annotation: _Annotation = _Annotation()


class _State(_Loose):
    present: bool = True
    annotated: Literal["dense", "sparse", "empty"]


class _Label(_Loose):
    value: int
    annotationState: _State


class _Noted(_Loose):
    cellmap: _Cellmap = _Cellmap()
    labels: tuple[_Label, ...] | None = None


@dataclass(frozen=True)
class Encoding:
    """The meaning of the values of one structure's array.

    ``present`` is None in an array of instances, where every value but the other two is the number
    of an instance. ``unknown`` is None where no voxel is unknown.
    """

    absent: int = 0
    present: int | None = 1
    unknown: int | None = 255

    def read(self, values: Array) -> Presence:
        """Return where the structure is, and where nobody knows, of an array of integers.

        A value of no meaning counts as unknown.
        """
        absent = values == self.absent
        if self.present is None:
            unknown = (
                np.zeros(values.shape, bool) if self.unknown is None else (values == self.unknown)
            )
            return Presence(~absent & ~unknown, unknown)
        present = values == self.present
        return Presence(present, ~absent & ~present)


def encoding(group: Attributes, array: Attributes, dtype: np.dtype[np.generic]) -> Encoding:
    """Return the meaning of an array's values from its attributes and those of its group.

    Raises:
        ValidationError: pydantic's; an attribute has another form than the schema of CellMap says.
    """
    own, its_group = (_Noted.model_validate(each).cellmap.annotation for each in (array, group))
    said = (
        own.annotation_type
        if "annotation_type" in own.model_fields_set
        else (its_group.annotation_type)
    )
    absent, unknown = said.encoding.get("absent", 0), said.encoding.get("unknown", 255)
    if said.type == "semantic_segmentation":
        return Encoding(absent, said.encoding.get("present", 1), unknown)
    counts = own.complement_counts or its_group.complement_counts or {}
    if dtype.itemsize > 1 and not counts.get("unknown"):
        return Encoding(absent, None, None)  # 255 is the 255th instance
    return Encoding(absent, None, unknown)


def counted_absent(group: Attributes, array: Attributes) -> int | None:
    """Return how many voxels of an array the annotators counted as absent; None if they did not."""
    for attributes in (array, group):
        counts = _Noted.model_validate(attributes).cellmap.annotation.complement_counts
        if counts is not None:
            return counts.get("absent")
    return None


def annotated_structures(
    crop: Attributes, labels: Attributes, table: ClassTable
) -> frozenset[str] | None:
    """Return the names of the structures that were annotated in a crop; None if nobody noted it.

    ``crop`` holds the attributes of the crop's group, ``labels`` those of its array ``all``, where
    older crops tell for each id how it was annotated. A structure that was annotated only here and
    there does not count.
    """
    names = _Noted.model_validate(crop).cellmap.annotation.class_names
    if names is not None:
        return frozenset(names)
    entries = _Noted.model_validate(labels).labels
    if entries is None:
        return None
    ids = [entry.value for entry in entries if entry.annotationState.annotated == "dense"]
    return frozenset(table.structure_of[number] for number in ids if number in table.structure_of)
