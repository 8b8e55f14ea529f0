"""Find the crops of a cell, and place their labels on its micrographs, before voxels are read."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import lcm, prod
from pathlib import Path

from pydantic import ValidationError

from models.data.intake.findings import DomainRefused, Problem
from models.data.openorganelle.annotation import (
    Encoding,
    annotated_structures,
    counted_absent,
    encoding,
)
from models.data.openorganelle.classes import ClassTable
from models.data.openorganelle.geometry import Box, GeometryError, Shape, factors, place
from models.data.openorganelle.multiscale import Attributes, VolumeError, levels
from models.data.openorganelle.source import OpenOrganelleSource
from models.data.openorganelle.volume import Volume, attributes_of
from models.data.readers.limits import ImageError
from models.data.readers.places import LocalPlace, Place, PlaceError
from models.data.readers.remote import open_place, open_public_bucket
from models.data.readers.remote_store import is_url

PUBLIC = "s3://janelia-cosem-datasets"
"""The public bucket of OpenOrganelle. It is read over HTTPS, without an account."""

_BUCKET, _REGION = "janelia-cosem-datasets", "us-west-2"
_LABELS = "labels/groundtruth"
_AT_ONCE = 8
_MAX_CHUNKS = 1 << 20
_MAX_SLAB_VOXELS = 1 << 29


@dataclass(frozen=True)
class LabelArray:
    """An array of labels; ``encoding`` is that of a single structure, None of ``all``.

    ``absent`` is the number of voxels that its annotators counted as absent, if they did.
    """

    name: str
    volume: Volume
    encoding: Encoding | None = None
    absent: int | None = None

    @property
    def is_empty(self) -> bool:
        """Tell whether no voxel shows the structure, so that none need be read."""
        return self.absent == prod(self.volume.grid.shape)


@dataclass(frozen=True)
class Crop:
    """A crop: its box in the micrographs, and the arrays that label it.

    ``block`` is the number of label voxels that make one voxel of the micrographs, along z, y, x.
    ``annotated`` holds the ids of the classes that people annotated here. A class that is not in it
    may be there or not. ``group`` is the name of what must not be divided: the crop, with those
    that overlap it. ``notes`` follow the crop's name.
    """

    name: str
    box: Box
    block: Shape
    arrays: tuple[LabelArray, ...]
    annotated: frozenset[int]
    group: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The crops of a cell that can be read. ``left_out`` tells of each other crop why it is not.

    ``place`` is the folder or address of the cell's hierarchy.
    """

    source: OpenOrganelleSource
    table: ClassTable
    place: str
    em: Volume
    crops: tuple[Crop, ...]
    left_out: dict[str, str]

    @property
    def pixel_size_nm(self) -> float:
        """The width of a pixel of a section, which shows y and x."""
        return self.em.grid.voxel_nm[2]


def plan_crops(source: OpenOrganelleSource, place: Place | None = None) -> Plan:
    """Read the metadata of a cell and of its crops.

    ``place`` is the folder that ``source.at`` names, where that was opened before.

    Raises:
        DomainRefused: names each crop that cannot be read, or what is wrong with the cell.
    """
    try:
        root, name = hierarchy(source, place or open_source(source))
        em = _micrographs(root, source)
        names = source.crops or _listed(root, source)
    except ImageError as error:
        raise DomainRefused([Problem(source.cell, str(error))]) from error
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # a web server answers late
        read = pool.map(lambda name: _Reading(root, em, source, name).told(), dict.fromkeys(names))
        told = list(read)
    problems = [each for each in told if isinstance(each, Problem)]
    crops = [each for each in told if isinstance(each, Crop)]
    if problems:
        raise DomainRefused(problems)
    kept, left_out = _each_place_once(crops, named=source.crops is not None)
    return Plan(source, source.table, name, em, tuple(_grouped(kept)), left_out)


def hierarchy(source: OpenOrganelleSource, place: Place) -> tuple[Place, str]:
    """Return the hierarchy of a cell in a place, and the folder or address where it was found.

    Raises:
        PlaceError: the place does not hold it.
    """
    at, cell = (source.at or PUBLIC).rstrip("/"), source.cell
    if at.endswith(".n5"):
        raise PlaceError(f"{at} is N5, which is not read: give the Zarr hierarchy of the same cell")
    tried = ("",) if at.endswith(".zarr") else (f"{cell}/{cell}.zarr", f"{cell}.zarr")
    for key in tried:
        root = place.at(key)
        if attributes_of(root) is not None:
            return root, f"{at}/{key}".rstrip("/")
    what = " nor ".join(key for key in tried if key) or "no Zarr hierarchy"
    raise PlaceError(f"{at} holds {'neither ' if ' nor ' in what else ''}{what}")


def open_source(source: OpenOrganelleSource) -> Place:
    """Open the place that a source names: a folder, an address, or the public bucket.

    Raises:
        PlaceError: the address cannot be understood, or the package obstore is not installed.
    """
    if source.at is None:
        return open_public_bucket(_BUCKET, region=_REGION)
    return open_place(source.at) if is_url(source.at) else LocalPlace.of(Path(source.at))


def _micrographs(root: Place, source: OpenOrganelleSource) -> Volume:
    key = f"{source.recon}/em/{source.em}"
    attributes = attributes_of(root.at(key))
    if attributes is None:
        others = root.listing(f"{source.recon}/em")
        there = f": there is {', '.join(others.folders)}" if others and others.folders else ""
        raise VolumeError(f"has no micrographs {key}{there}")
    found = {level.path: level for level in levels(attributes)}
    if source.em_level not in found:
        raise VolumeError(f"{key} has no level {source.em_level}: it has {', '.join(found)}")
    em = Volume(root, key, found[source.em_level])
    _, height, width = em.grid.voxel_nm
    if abs(height - width) > 1e-6 * width:
        raise VolumeError(
            f"{key} has voxels of {height:g} x {width:g} nm in y and x: square ones are read"
        )
    return em


def _listed(root: Place, source: OpenOrganelleSource) -> list[str]:
    key = f"{source.recon}/{_LABELS}"
    listing = root.listing(key)
    if listing is None:
        raise PlaceError(f"lies on a server that lists no folders: name the crops of {key}")
    numbers = [name[4:] for name in listing.folders if name.startswith("crop")]
    names = [f"crop{n}" for n in sorted(int(n) for n in numbers if n.isascii() and n.isdigit())]
    if not names:
        raise VolumeError(f"has no crops in {key}")
    return names


class _Reading:
    """The reading of one crop's metadata."""

    def __init__(self, root: Place, em: Volume, source: OpenOrganelleSource, name: str) -> None:
        self._root = root
        self._em = em
        self._source = source
        self._table = source.table
        self._name = name
        self._key = f"{source.recon}/{_LABELS}/{name}"

    def told(self) -> Crop | Problem:
        """Return the crop, or why it cannot be read."""
        try:
            return self._crop()
        except (GeometryError, ImageError) as error:
            return Problem(self._name, str(error))
        except ValidationError as error:
            said = error.errors()[0]["msg"]
            return Problem(self._name, f"has annotations of a form that is not read: {said}")

    def _crop(self) -> Crop:
        own = self._attributes(self._key) or {}
        everything = self._attributes(f"{self._key}/all")
        structures = annotated_structures(own, everything or {}, self._table)
        if everything is not None:
            arrays, notes = [LabelArray("all", self._level("all", everything))], list[str]()
        else:
            arrays, notes = self._structures(structures)
            structures = frozenset(each.name for each in arrays)
        grids = {each.volume.grid for each in arrays}
        if len(grids) > 1:
            raise VolumeError("has arrays of different places or sizes, and no array all")
        grid = grids.pop()
        box, block = place(grid, self._em.grid), factors(grid, self._em.grid)
        _check_size(self._em, box, 1)
        for each in arrays:
            if not each.is_empty:
                _check_size(each.volume, Box((0, 0, 0), grid.shape), label_depth(arrays, block))
        annotated, lacking = self._annotated(structures)
        return Crop(
            name=self._name,
            box=box,
            block=block,
            arrays=tuple(arrays),
            annotated=annotated,
            group=self._name,
            notes=(*notes, *lacking),
        )

    def _attributes(self, key: str) -> Attributes | None:
        return attributes_of(self._root.at(key))

    def _structures(self, names: frozenset[str] | None) -> tuple[list[LabelArray], list[str]]:
        """Return the arrays of structures, and notes about those that should be there."""
        notes = ["has no array all: its classes are made of the arrays of structures"]
        found, missing = [], []
        for name in dict.fromkeys([*self._table.class_of, *self._table.groups]):
            if names is not None and name not in names:
                continue
            attributes = self._attributes(f"{self._key}/{name}")
            if attributes is None:
                missing.append(name)
                continue
            volume = self._level(name, attributes)
            told = encoding(attributes, volume.attributes, volume.dtype)
            absent = counted_absent(attributes, volume.attributes)
            found.append(LabelArray(name, volume, told, absent))
        if all(each.is_empty for each in found):
            what = "no voxel in an array" if found else "no array"
            raise VolumeError(
                f"does not exist, or has no array all and {what} of a structure of the class table"
            )
        if missing and names is not None:
            notes.append(f"has no array of {', '.join(missing)}, though it was annotated")
        return found, notes

    def _level(self, name: str, attributes: Attributes) -> Volume:
        """Return the level of an array of labels that lies on the micrographs."""
        key = f"{self._key}/{name}"
        refused: list[str] = []
        for level in levels(attributes):
            volume = Volume(self._root, key, level)
            try:
                block = factors(volume.grid, self._em.grid)
            except GeometryError as error:
                refused.append(str(error))
                continue
            if self._source.labels == "reduced" or block == (1, 1, 1):
                # A coarser level could hide that this one does not fit: it was rounded.
                place(volume.grid, self._em.grid)
                return volume
        if refused:
            raise GeometryError(refused[0])
        raise VolumeError(
            f"has no level of {name} at the voxels of the micrographs: read the labels reduced"
        )

    def _annotated(self, structures: frozenset[str] | None) -> tuple[frozenset[int], list[str]]:
        every = range(len(self._table.classes))
        if structures is None:
            return frozenset(every), ["does not tell what was annotated: all classes count"]
        annotated = {n for n in every if self._table.structures(n) & structures}
        lacking = [self._table.class_names[n] for n in every if n not in annotated]
        notes = [f"was not annotated for {', '.join(lacking)}"] if lacking else []
        return frozenset(annotated), notes


def label_depth(arrays: Sequence[LabelArray], block: Shape) -> int:
    """Return of how many label voxels along z a slab must be a multiple.

    It then has whole blocks, and whole chunks of each array that is read.
    """
    return lcm(block[0], *(each.volume.chunk[0] for each in arrays if not each.is_empty))


def _check_size(volume: Volume, box: Box, multiple: int) -> None:
    """Raise VolumeError for a box of too many files, or of slabs too large for memory."""
    num_chunks = volume.num_chunks(box)
    if num_chunks > _MAX_CHUNKS:
        raise VolumeError(
            f"has {num_chunks} chunks in {volume.key}: at most {_MAX_CHUNKS} are read"
        )
    slab = next(volume.slabs(box, multiple))
    if prod(slab.shape) > _MAX_SLAB_VOXELS:
        raise VolumeError(
            f"has chunks of {volume.chunk[0]} voxels along z in {volume.key}, so that "
            f"{prod(slab.shape)} voxels would be read at once: at most {_MAX_SLAB_VOXELS} are"
        )


def _each_place_once(crops: Sequence[Crop], *, named: bool) -> tuple[list[Crop], dict[str, str]]:
    """Keep the first of crops at the same place: a copy could be trained on and tested on."""
    first: dict[Box, str] = {}
    kept, left_out = [], {}
    for crop in crops:
        if crop.box in first:
            left_out[crop.name] = f"lies at the same place as {first[crop.box]}"
        else:
            first[crop.box] = crop.name
            kept.append(crop)
    if named and left_out:
        raise DomainRefused(
            [Problem(name, f"{why}: name one of them") for name, why in left_out.items()]
        )
    return kept, left_out


def _grouped(crops: Sequence[Crop]) -> list[Crop]:
    """Give crops that overlap, also by way of others, one group."""
    groups: list[list[Crop]] = []
    for crop in crops:
        touching = [g for g in groups if any(crop.box.overlaps(other.box) for other in g)]
        groups = [g for g in groups if g not in touching]
        groups.append([*(other for g in touching for other in g), crop])
    name_of = {
        crop.name: "+".join(member.name for member in group) for group in groups for crop in group
    }
    return [
        replace(crop, group=name_of[crop.name], notes=_with_overlap(crop, name_of[crop.name]))
        for crop in crops
    ]


def _with_overlap(crop: Crop, group: str) -> tuple[str, ...]:
    if group == crop.name:
        return crop.notes
    return (*crop.notes, f"overlaps other crops: {group} are one group, which is never divided")
