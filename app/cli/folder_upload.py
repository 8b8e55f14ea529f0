"""Registers files of this computer as a dataset, by upload; ``meta.json`` may describe a folder."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from app.client.client import Client, Watch
from app.datasets.schemas import DatasetCreate, DatasetReport
from app.errors import invalid_fields
from models.data.intake.inputs import Input, InputFile, Inputs
from models.data.intake.layout import folder_inputs
from models.data.readers.places import LocalPlace, PlacedFile, PlaceError, placed
from models.data.splits import SectionLists

_SPLITS = ("train", "val", "test")
_META = "meta.json"


class FolderMeta(BaseModel):
    """The fields of ``meta.json`` that are read; ``splits`` counts the images from 0.

    The images are counted in natural order: ``img_2`` comes before ``img_10``. Other fields are
    those of a registration, such as ``mask_values``.
    """

    model_config = ConfigDict(extra="allow")

    name: str | None = None
    classes: list[str] | None = None
    pixel_size_nm: float | None = Field(None, gt=0)
    splits: dict[str, list[int]] = {}


class FolderError(Exception):
    """A folder cannot be registered; the message says why."""


def send_folder(client: Client, folder: Path, *, tile_px: int | None) -> DatasetReport:
    """Register a folder that its ``meta.json`` describes, by an upload."""
    if not (folder / _META).exists():
        example = '{"name": "mine", "classes": ["rest", "mitochondrion"], "pixel_size_nm": 8}'
        raise FolderError(f"there is no {folder / _META}: write one such as {example}")
    inputs = inputs_of([folder])
    fields = described(folder, inputs) | ({} if tile_px is None else {"tile_px": tile_px})
    return send(client, request_of(fields, str(folder / _META)), inputs)


def send(
    client: Client, request: DatasetCreate, inputs: Inputs, watch: Watch = lambda _: None
) -> DatasetReport:
    """Register images and masks by an upload; folders of Zarr are sent as ZIP files."""
    with TemporaryDirectory(prefix="stylefilter-") as temporary:
        images = [_file(given, Path(temporary), "images") for given in inputs.images]
        masks = [_file(given, Path(temporary), "masks") for given in inputs.masks]
        return client.upload_dataset(request, images, masks, watch=watch)


def inputs_of(paths: Sequence[Path]) -> Inputs:
    """Return the images and masks of one folder, by the folder rules, or these files as images."""
    try:
        if len(paths) == 1 and paths[0].is_dir() and paths[0].suffix.lower() != ".zarr":
            inputs = folder_inputs(paths[0])
            if not inputs.images:
                raise FolderError(
                    f"{paths[0]} holds no images: put them into its folder images, or name the "
                    "files themselves"
                )
            return inputs
        return Inputs([InputFile(path.name, placed(path)) for path in paths], [])
    except PlaceError as error:
        raise FolderError(f"{', '.join(map(str, paths))} {error}") from error


def described(folder: Path, inputs: Inputs) -> dict[str, JsonValue]:
    """Return the fields of a registration that ``meta.json`` gives; none without that file."""
    path = folder / _META
    if not path.exists():
        return {}
    meta = read_meta(path)
    fields = dict(meta.model_extra or {})
    if meta.classes is not None:
        fields["class_names"] = list(meta.classes)
    stems = [image.stem for image in inputs.images]
    try:
        splits = {name: [stems[i] for i in meta.splits.get(name, [])] for name in _SPLITS}
    except IndexError as error:
        raise FolderError(
            f"{path} lists an image in splits that does not exist: the {len(stems)} images are "
            "numbered from 0"
        ) from error
    if meta.splits:
        fields["splits"] = SectionLists.model_validate(splits).model_dump(mode="json")
    given = {"name": meta.name, "pixel_size_nm": meta.pixel_size_nm}
    known = DatasetCreate.model_fields.keys()
    return {name: value for name, value in (fields | given).items() if name in known and value}


def request_of(fields: Mapping[str, JsonValue], where: str) -> DatasetCreate:
    """Return the request with these fields; FolderError says which of ``where`` is wrong."""
    try:
        return DatasetCreate.model_validate(fields)
    except ValidationError as error:
        reason = invalid_fields(error.errors()).detail
        raise FolderError(f"{where} does not describe a dataset: {reason}") from error


def pixel_size_nm(folder: Path) -> float | None:
    """Return the pixel size in a folder's ``meta.json``; None if there is none that can be read."""
    try:
        return read_meta(folder / _META).pixel_size_nm
    except FolderError:  # whoever registers the folder says what is wrong
        return None


def read_meta(path: Path) -> FolderMeta:
    """Read a ``meta.json``; FolderError if it cannot be read or a field is wrong."""
    try:
        return FolderMeta.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FolderError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise FolderError(f"{path}: {where or 'its JSON'} is wrong: {first['msg']}") from error


def _file(given: Input, temporary: Path, layer: str) -> Path:
    """Return the file to send; a Zarr folder is packed into one first."""
    assert isinstance(given, InputFile)
    assert isinstance(given.file, PlacedFile)
    assert isinstance(given.file.place, LocalPlace)
    path = given.file.place.folder / given.file.key
    if not path.is_dir():
        return path
    packed = temporary / layer / f"{given.stem}.zarr.zip"
    packed.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:  # chunks are packed already
        for inner in sorted(path.rglob("*")):
            if inner.is_file():
                archive.write(inner, inner.relative_to(path))
    return packed
