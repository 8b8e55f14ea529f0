"""Registers a folder of this computer (images, masks and meta.json) as a dataset, by upload."""

from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from app.client import Client
from app.datasets.schemas import DatasetCreate, DatasetReport
from app.errors import invalid_fields
from models.data.splits import SectionLists

_SPLITS = ("train", "val", "test")


class FolderMeta(BaseModel):
    """The fields of ``meta.json`` that are read; ``splits`` counts the sorted images from 0."""

    name: str
    classes: list[str]
    pixel_size_nm: float = Field(gt=0)
    splits: dict[str, list[int]] = {}


class FolderError(Exception):
    """A folder cannot be registered; the message says why."""


def send_folder(client: Client, folder: Path, *, tile_px: int | None) -> DatasetReport:
    """Register the PNG files of ``folder/images`` and ``folder/masks`` by an upload."""
    meta = read_meta(folder)
    images = sorted((folder / "images").glob("*.png"))
    if not images:
        raise FolderError(
            f"{folder}/images holds no PNG file, and this command reads no other: save the images "
            "as PNG, or register them with POST /datasets"
        )
    masks = sorted((folder / "masks").glob("*.png"))
    stems = [image.stem for image in images]
    try:
        splits = {name: tuple(stems[i] for i in meta.splits.get(name, [])) for name in _SPLITS}
    except IndexError as error:
        raise FolderError(
            f"{folder}/meta.json lists an image in splits that does not exist: the {len(stems)} "
            "images are numbered from 0"
        ) from error
    try:
        request = DatasetCreate(
            name=meta.name,
            class_names=meta.classes,
            pixel_size_nm=meta.pixel_size_nm,
            tile_px=tile_px,
            splits=SectionLists(**splits) if meta.splits else None,
        )
    except ValidationError as error:
        reason = invalid_fields(error.errors()).detail
        raise FolderError(f"{folder}/meta.json does not describe a dataset: {reason}") from error
    return client.upload_dataset(request, images, masks)


def read_meta(folder: Path) -> FolderMeta:
    """Read a folder's ``meta.json``; FolderError if it cannot be read or a field is wrong."""
    path = folder / "meta.json"
    try:
        return FolderMeta.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        example = '{"name": "mine", "classes": ["rest", "mitochondrion"], "pixel_size_nm": 8}'
        raise FolderError(f"there is no {path}: write one such as {example}") from error
    except OSError as error:
        raise FolderError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise FolderError(f"{path}: {where or 'its JSON'} is wrong: {first['msg']}") from error
