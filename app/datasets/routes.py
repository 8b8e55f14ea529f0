"""Datasets over HTTP."""

import errno
import json
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import TypeAdapter
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from app.datasets import service
from app.datasets.registrar import Registrar
from app.datasets.registration import folder_files
from app.datasets.schemas import (
    DATASET_EXAMPLE,
    DatasetCreate,
    DatasetRead,
    DatasetReport,
    ImageRead,
    NoteRead,
)
from app.dependencies import (
    CursorQuery,
    DatasetId,
    LimitQuery,
    ReadingDep,
    ServicesDep,
    address,
)
from app.errors import Invalid, ProblemItem, TooLarge
from app.middleware.error_handlers import DISK_FULL, NO_DATABASE
from app.middleware.forms import FIELD_BYTES, read_form
from app.middleware.strict_route import FORM, JSON, StrictRoute, check_media_type, json_of
from app.pagination import LARGEST_NUMBER, Page
from models.data.inputs import InputFile, Inputs, given_files

# Each file of an upload takes up to 1 MiB of memory, or a file descriptor.
_MAX_FILES = 1000
_METADATA = TypeAdapter(DatasetCreate)

router = APIRouter(
    prefix="/datasets", tags=["datasets"], responses=NO_DATABASE, route_class=StrictRoute
)

_UPLOAD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["metadata", "images"],
    "properties": {
        "metadata": {
            "type": "string",
            "maxLength": FIELD_BYTES,
            "description": "The fields of `DatasetCreate` as JSON, without `folder`.",
            "examples": [json.dumps({k: v for k, v in DATASET_EXAMPLE.items() if k != "folder"})],
        },
        "images": {
            "type": "array",
            "maxItems": _MAX_FILES,
            "items": {"type": "string", "format": "binary"},
            "description": "The images: PNG or TIFF files, or zipped Zarr arrays (N, H, W).",
        },
        "masks": {
            "type": "array",
            "maxItems": _MAX_FILES,
            "items": {"type": "string", "format": "binary"},
            "description": "The masks, each with the file name of its image.",
        },
    },
}
NumberPath = Annotated[
    int, Path(ge=0, le=LARGEST_NUMBER, description="The number of the image, from 0.")
]

_BEFORE: dict[int | str, dict[str, Any]] = {
    200: {
        "model": DatasetReport,
        "description": "A dataset of this name and content had been registered before: it is the "
        "answer.",
    }
}

_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/DatasetCreate"}},
        "multipart/form-data": {"schema": _UPLOAD_SCHEMA},
    },
}


@router.post(
    "",
    status_code=201,
    response_model=DatasetReport,
    responses=DISK_FULL | _BEFORE,
    openapi_extra={"requestBody": _BODY},
)
async def register(request: Request, response: Response, services: ServicesDep) -> DatasetReport:
    """Register a dataset from a folder of the service (JSON) or from uploaded files (multipart).

    An upload has the fields of `DatasetCreate` as JSON in `metadata`, and files in `images` and
    `masks`. The files are PNG, TIFF, or zipped Zarr arrays of shape (N, H, W). A mask belongs to
    the image with the same file name. The service checks all files before it stores any, and a
    refusal names each file that is wrong. A registered dataset never changes.

    If a dataset of this name and content exists, the answer is that dataset with status 200, and no
    second one is made.
    """
    if check_media_type(request, JSON, FORM) == FORM:
        async with _form(request) as form:
            metadata, files = await _form_parts(request, form)
            report, new = await services.heavy.run(_register, services, metadata, files)
    else:
        metadata = await json_of(request, _METADATA, await request.body())
        report, new = await services.heavy.run(_register_folder, services, metadata)
    if not new:
        response.status_code = 200
    response.headers["Location"] = address(request, f"/datasets/{report.id}")
    return report


@router.get("")
def list_datasets(
    session: ReadingDep, limit: LimitQuery = 100, cursor: CursorQuery = None
) -> Page[DatasetRead]:
    """List the registered datasets, newest first."""
    return service.list_datasets(session, limit, cursor)


@router.get("/{dataset_id}")
def get_dataset(dataset_id: DatasetId, session: ReadingDep) -> DatasetReport:
    """Return a dataset with its sections, their splits, and the number of pixels of each class."""
    return service.report(session, dataset_id)


@router.get("/{dataset_id}/images")
def list_images(
    dataset_id: DatasetId,
    session: ReadingDep,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[ImageRead]:
    """List the images of a dataset, in the order of their numbers.

    Each image has labels of its own. It is a tile if the dataset has `tile_px`, else a whole
    section.
    """
    return service.list_images(session, dataset_id, limit, cursor)


@router.get(
    "/{dataset_id}/images/{n}",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}},
)
def preview_image(
    dataset_id: DatasetId,
    n: NumberPath,
    session: ReadingDep,
    services: ServicesDep,
    layer: Annotated[
        Literal["images", "masks"], Query(description="`images` shows the image, `masks` its mask.")
    ] = "images",
) -> Response:
    """Return an image, or its mask, as PNG.

    A pixel of a mask holds the id of its class, or 255 where the mask ignores the pixel.
    """
    data = service.preview(session, services.storage, dataset_id, n, layer)
    # A dataset never changes, so a browser may keep the picture.
    return Response(data, media_type="image/png", headers={"Cache-Control": "max-age=86400"})


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: DatasetId, services: ServicesDep) -> None:
    """Delete a dataset, unless an unfinished job uses it. Models trained on it stay."""
    service.remove(services.database, services.storage, dataset_id)


def _register_folder(services: ServicesDep, metadata: DatasetCreate) -> tuple[DatasetReport, bool]:
    if metadata.folder is None:
        message = "the request names no folder: name one, or upload files as multipart/form-data"
        raise Invalid(message, [ProblemItem(where="body.folder", message=message)])
    return _register(services, metadata, folder_files(services.settings, metadata.folder))


def _register(
    services: ServicesDep, metadata: DatasetCreate, files: Inputs
) -> tuple[DatasetReport, bool]:
    """Register files; return the dataset, and whether it is a new one."""
    registrar = Registrar(services.database, services.storage, services.settings)
    registered = registrar.register(metadata, files)
    with services.database.reading() as session:
        report = service.report(session, registered.dataset_id)
    if not registered.new:
        words = "had been registered before with this name and content: this is that dataset"
        report.notes.append(NoteRead(where="request", code="registered_before", message=words))
    return report, registered.new


@asynccontextmanager
async def _form(request: Request) -> AsyncIterator[FormData]:
    """Yield the uploaded form; TooLarge if it has more files than the service can hold open."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(_MAX_FILES, descriptors // 2)
    advice = (
        "put the sections into stacks (TIFF or zipped Zarr), or register a folder of the service"
    )
    try:
        form = await read_form(request, ("metadata",), ("images", "masks"), max_files=most)
        try:
            yield form
        finally:
            await form.close()
    except HTTPException as error:
        if not error.detail.startswith("Too many files"):
            raise
        raise TooLarge(f"the upload has more than {most} files: {advice}") from error
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise TooLarge(
            f"the upload has more files than the service can hold open now: {advice}"
        ) from error


async def _form_parts(request: Request, form: FormData) -> tuple[DatasetCreate, Inputs]:
    metadata = form.get("metadata")
    if not isinstance(metadata, str):
        message = "the form has no text field `metadata`: put the dataset's description there, JSON"
        raise Invalid(message, [ProblemItem(where="body.metadata", message=message)])
    described = await json_of(request, _METADATA, metadata.encode())
    if described.folder is not None:
        message = "an upload cannot name a folder too: remove this field"
        raise Invalid(message, [ProblemItem(where="body.folder", message=message)])
    return described, given_files(_files(form, "images"), _files(form, "masks"))


def _files(form: FormData, kind: str) -> list[InputFile]:
    parts = form.getlist(kind)
    files = [part for part in parts if isinstance(part, UploadFile)]
    if len(files) != len(parts):
        message = f"a part named {kind!r} is no file: send each as a file with a file name"
        raise Invalid(message, [ProblemItem(where=f"body.{kind}", message=message)])
    return [
        InputFile(f"{kind}/{PurePath(part.filename or '').name or number}", part.file)
        for number, part in enumerate(files)
    ]
