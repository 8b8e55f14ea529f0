"""Finds the files of a folder to register.

The folder lies under one of the data roots, which the operator names in STYLEFILTER_DATA_ROOTS.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from app.errors import Invalid, ProblemItem, refusal
from app.settings import Settings
from models.data.intake.inputs import Input, InputFile, Inputs
from models.data.intake.layout import folder_inputs
from models.data.openorganelle.plan import PUBLIC, hierarchy, open_source
from models.data.openorganelle.source import OpenOrganelleSource
from models.data.readers.limits import ImageError
from models.data.readers.places import LocalPlace, Place, PlacedFile, PlaceError, joined
from models.data.readers.remote import open_place
from models.data.readers.remote_store import is_url


def folder_files(settings: Settings, folder: str) -> Inputs:
    """Return the image and mask files of a folder under a data root.

    No file outside of the folder is ever opened through them, whatever links the folder holds.

    Raises:
        Invalid: there is no such folder, it cannot be read, or it holds no images.
    """
    try:
        inputs = _inputs(settings.data_roots, folder)
        for given in (*inputs.images, *inputs.masks):
            _check(given)
    except PlaceError as error:
        raise _folder_problem(f"{folder!r} {error}") from error
    if not inputs.images:
        raise _folder_problem(
            f"{folder!r} holds no images: put PNG or TIFF files into its folder images/, or a "
            "Zarr array into images.zarr"
        )
    return inputs


def cell_place(settings: Settings, source: OpenOrganelleSource) -> Place:
    """Return the place of a public cell, or of a copy of it, which lies under a data root.

    Raises:
        Invalid: it lies elsewhere, or a folder of this computer does not hold the cell.
    """
    if source.at is not None:
        return _copy_of_cell(settings, source, source.at)
    if PUBLIC not in [str(root).rstrip("/") for root in settings.data_roots]:
        raise refusal(
            "at",
            "this service does not read the public bucket of OpenOrganelle: name a copy of the "
            f"cell in `at`, or ask the operator to add {PUBLIC} to STYLEFILTER_DATA_ROOTS",
        )
    try:
        return open_source(source)
    except PlaceError as error:
        raise refusal("at", f"{PUBLIC} {error}") from error


def _copy_of_cell(settings: Settings, source: OpenOrganelleSource, at: str) -> Place:
    problem = (
        f"{at!r} is no folder under a data root of this service: give its path relative to one of "
        "the folders in STYLEFILTER_DATA_ROOTS, or its whole address"
    )
    for root in settings.data_roots if "\0" not in at else ():
        try:
            for place in _places(root, at):
                if isinstance(place, LocalPlace):  # of another, asking would take too long
                    hierarchy(source, place)
                return place
        except ImageError as error:
            problem = str(error)
    raise refusal("at", problem)


def _inputs(roots: Sequence[Path | str], folder: str) -> Inputs:
    if not roots:
        raise _folder_problem(
            "this service reads no folders, because STYLEFILTER_DATA_ROOTS names none: upload the "
            "files instead"
        )
    if "\0" in folder:
        raise _folder_problem("the folder's name holds a null character: remove it")
    for root in roots:
        for place in _places(root, folder):
            inputs = folder_inputs(place)
            # A bucket has no folders, so one that does not exist is as one that holds nothing.
            if inputs.images or isinstance(place, LocalPlace):
                return inputs
    raise _folder_problem(
        f"{folder!r} is no folder under a data root of this service, or holds no images: give its "
        "path relative to one of the folders in STYLEFILTER_DATA_ROOTS, or its whole address"
    )


def _check(given: Input) -> None:
    """Refuse before all work what could not be read; of a place far away that would cost much."""
    assert isinstance(given, InputFile)
    assert isinstance(given.file, PlacedFile)
    if isinstance(given.file.place, LocalPlace):
        given.file.place.check(given.file.key)


def _places(root: Path | str, folder: str) -> Iterator[Place]:
    """Yield the folder as a place, if it lies under the root."""
    if isinstance(root, Path):
        path = _local_folder(root.resolve(), folder)
        if path is not None:
            yield LocalPlace(path, path)
    elif is_url(folder):
        wanted, allowed = urlsplit(folder), urlsplit(root)
        parts = _parts(allowed.path)
        same_server = (wanted.scheme, wanted.netloc) == (allowed.scheme, allowed.netloc)
        if same_server and _parts(wanted.path)[: len(parts)] == parts:
            yield open_place(folder)
    elif not folder.startswith("/"):
        yield open_place(root).at(folder)


def _local_folder(root: Path, folder: str) -> Path | None:
    """Return a folder whose path without links lies under the root."""
    if is_url(folder):
        address = urlsplit(folder)
        if address.scheme != "file" or address.netloc not in ("", "localhost"):
            return None
        folder = unquote(address.path)
    path = _resolved(root / folder)
    if path is not None and path.is_relative_to(root) and path.is_dir():
        return path
    return None


def _parts(path: str) -> list[str]:
    return joined(unquote(path)).split("/") if joined(unquote(path)) else []


def _folder_problem(message: str) -> Invalid:
    return Invalid(message, [ProblemItem(where="body.folder", message=message)])


def _resolved(path: Path) -> Path | None:
    """Follow all links of a path and return where it is; None if a link leads nowhere."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None
