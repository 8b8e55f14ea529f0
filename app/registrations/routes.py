"""The registration of datasets over HTTP."""

import json
from collections.abc import Mapping
from pathlib import Path as FolderPath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import JsonValue, TypeAdapter

from app.datasets.schemas import (
    DATASET_EXAMPLE,
    DatasetCreate,
    DatasetReport,
    OpenOrganelleCreate,
)
from app.errors import Invalid, ProblemItem
from app.http.dependencies import DatasetId, ServicesDep, address
from app.http.json_body import parsed, validated
from app.jobs.dependencies import Key, QueueDep
from app.jobs.schemas import JobRead
from app.middleware.error_handlers import DISK_FULL, NO_DATABASE
from app.middleware.forms import FIELD_BYTES
from app.middleware.strict_route import FORM, JSON, StrictRoute, check_media_type, in_turn, json_of
from app.registrations.changes import DatasetChanges
from app.registrations.plan import SentFile
from app.registrations.receiving import MOST_FILES, receive
from app.registrations.service import Asked, Done, Registrations

router = APIRouter(
    prefix="/datasets", tags=["datasets"], responses=NO_DATABASE, route_class=StrictRoute
)

_ASYNC = "respond-async"
_METADATA = TypeAdapter(DatasetCreate)
_CELL = TypeAdapter(OpenOrganelleCreate)
_CHANGES = TypeAdapter(DatasetChanges)


def _form_schema(metadata: str, example: Mapping[str, JsonValue]) -> dict[str, Any]:
    """Return the schema of a form with files and, as JSON, the fields of a schema."""
    files = {
        "type": "array",
        "maxItems": MOST_FILES,
        "items": {"type": "string", "format": "binary"},
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["metadata", "images"],
        "properties": {
            "metadata": {
                "type": "string",
                "maxLength": FIELD_BYTES,
                "description": f"The fields of `{metadata}` as JSON, without `folder` and "
                "`uploads`.",
                "examples": [json.dumps(example)],
            },
            "images": files
            | {"description": "The images: files of any format that is read, such as PNG or TIFF."},
            "masks": files | {"description": "The masks, each with the file name of its image."},
        },
    }


_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "oneOf": [
                    {"$ref": "#/components/schemas/DatasetCreate"},
                    {"$ref": "#/components/schemas/OpenOrganelleCreate"},
                ]
            }
        },
        "multipart/form-data": {
            "schema": _form_schema(
                "DatasetCreate", {k: v for k, v in DATASET_EXAMPLE.items() if k != "folder"}
            )
        },
    },
}

_VERSION_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/DatasetChanges"}},
        "multipart/form-data": {"schema": _form_schema("DatasetChanges", {"tile_px": 256})},
    },
}

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": DatasetReport,
        "description": "A dataset of this name and content had been registered before: it is the "
        "answer.",
    },
    202: {
        "model": JobRead,
        "description": "A job registers the dataset. `Location` is the job's address; when the job "
        "has succeeded, its `result.dataset` is the id of the dataset.",
    },
}


def get_registrations(services: ServicesDep, queue: QueueDep) -> Registrations:
    return Registrations(services.database, services.storage, services.settings, queue)


class Wishes:
    """The headers of a request for a dataset."""

    def __init__(
        self,
        key: Key = None,
        prefer: Annotated[
            str | None,
            Header(
                max_length=200,
                description="`respond-async` asks for a job, however small the dataset is.",
                examples=[_ASYNC],
            ),
        ] = None,
    ) -> None:
        self.key = key
        named = (wish.split(";")[0].strip().lower() for wish in (prefer or "").split(","))
        self.later = _ASYNC in named


@router.post(
    "",
    status_code=201,
    response_model=DatasetReport,
    responses=DISK_FULL | _ANSWERS,
    openapi_extra={"requestBody": _BODY},
)
async def register(
    request: Request,
    response: Response,
    services: ServicesDep,
    wishes: Annotated[Wishes, Depends()],
    registrations: Annotated[Registrations, Depends(get_registrations)],
) -> DatasetReport | Response:
    """Register a dataset from a folder of the service or a public cell (JSON), or uploaded files.

    Large files had better be sent by `POST /uploads` before, which can be resumed; `uploads` then
    names them in a request of JSON.

    An upload has the fields of `DatasetCreate` as JSON in `metadata`, and files in `images` and
    `masks`. The files are PNG, TIFF, or zipped Zarr arrays of shape (N, H, W). A mask belongs to
    the image with the same file name. The service checks all files before it stores any, and a
    refusal names each file that is wrong. A registered dataset never changes.

    A dataset whose files have up to 64 MiB, and whose pixels have up to 64 MiB when they are
    unpacked, is registered within the request: the answer is the dataset, with status 201. For a
    larger one, or with the header `Prefer: respond-async`, the answer is a job, with status 202.
    The job reads and checks the files; if a file is wrong the job fails, and its `error` names each
    file that is wrong. The operator may have set another size (STYLEFILTER_REGISTER_NOW_BYTES).

    A request with the `kind` `openorganelle` is for crops of a public cell, and always takes a job.

    A request may be sent again if its answer was lost. While a job registers the same files, the
    answer is that job. If a dataset of this name and content exists, the answer is that dataset,
    with status 200. No second one is made.
    """
    with services.storage.receiving() as folder:
        wanted: DatasetCreate | OpenOrganelleCreate
        text, files, in_form = await _read(request, services, folder)
        if in_form:
            wanted = await json_of(request, _METADATA, text)
        else:
            wanted = await in_turn(request, _named, text)
        if isinstance(wanted, DatasetCreate):
            _check_origin(wanted, in_form=in_form)
        asked = Asked(wanted, folder, files, key=wishes.key, later=wishes.later)
        taken = await services.heavy.run(registrations.take, asked)
    return _answer(request, response, taken)


@router.post(
    "/{dataset_id}/versions",
    status_code=201,
    response_model=DatasetReport,
    responses=DISK_FULL | _ANSWERS,
    openapi_extra={"requestBody": _VERSION_BODY},
)
async def add_version(  # noqa: PLR0913 - FastAPI hands each part of the request over by itself
    request: Request,
    response: Response,
    dataset_id: DatasetId,
    services: ServicesDep,
    wishes: Annotated[Wishes, Depends()],
    registrations: Annotated[Registrations, Depends(get_registrations)],
) -> DatasetReport | Response:
    """Make a new version of a dataset, with other files or with a corrected description.

    A dataset never changes, so that a result can always be traced to its data. The new version has
    the name of the dataset and the next number. Fields that the request does not give stay as they
    were. Without files the stored pixels are read again; then every field may change but those
    that say what is read from the files (`reading`, `ignore_value`; `crop` and `mask_values` if
    they were given before). Labels are kept where section, tile and class have the same names and
    place; after another `crop` none is kept. The answers are those of `POST /datasets`.
    """
    with services.storage.receiving() as folder:
        text, files, in_form = await _read(request, services, folder)
        changes = await json_of(request, _CHANGES, text)
        wanted = await services.heavy.run(
            registrations.changed, dataset_id, changes.root, in_form=in_form
        )
        if in_form or wanted.folder or wanted.uploads:
            _check_origin(wanted, in_form=in_form)
        asked = Asked(wanted, folder, files, dataset_id, wishes.key, wishes.later)
        taken = await services.heavy.run(registrations.take, asked)
    return _answer(request, response, taken)


async def _read(
    request: Request, services: ServicesDep, folder: FolderPath
) -> tuple[bytes, tuple[SentFile, ...], bool]:
    """Return the JSON of the request, the files that came with it, and whether it is a form."""
    if check_media_type(request, JSON, FORM) == FORM:
        with services.uploads.one():
            metadata, files = await receive(request, folder)
        return metadata.encode(), files, True
    return await request.body(), (), False


def _answer(
    request: Request, response: Response, taken: Done | JobRead
) -> DatasetReport | Response:
    if isinstance(taken, JobRead):
        location = {"Location": address(request, f"/jobs/{taken.id}")}
        return Response(
            taken.model_dump_json(), 202, headers=location, media_type="application/json"
        )
    if not taken.new:
        response.status_code = 200
    response.headers["Location"] = address(request, f"/datasets/{taken.report.id}")
    return taken.report


def _named(body: bytes) -> DatasetCreate | OpenOrganelleCreate:
    """Return the request of a JSON body; one that has a ``kind`` is for a public cell."""
    values = parsed(body)
    of_cell = isinstance(values, dict) and "kind" in values
    return validated(_CELL, values) if of_cell else validated(_METADATA, values)


def _check_origin(request: DatasetCreate, *, in_form: bool) -> None:
    """Refuse a request whose files come from two sources, or from none."""
    named = [name for name in ("folder", "uploads") if getattr(request, name) is not None]
    if len(named) == (0 if in_form else 1):
        return
    if in_form:
        message = f"a form with files cannot name {named[0]} too: remove this field"
    elif named:
        message = "the request names both folder and uploads: remove one of them"
    else:
        message = (
            "the request names no folder: name one, or name uploads, or send the files as "
            "multipart/form-data"
        )
    where = f"body.{named[-1] if named else 'folder'}"
    raise Invalid(message, [ProblemItem(where=where, message=message)])
