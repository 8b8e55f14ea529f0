"""The registration of datasets over HTTP."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import TypeAdapter

from app.datasets.schemas import (
    DATASET_EXAMPLE,
    DatasetCreate,
    DatasetReport,
    OpenOrganelleCreate,
)
from app.dependencies import ServicesDep, address
from app.errors import Invalid, ProblemItem
from app.jobs.dependencies import Key, QueueDep
from app.jobs.schemas import JobRead
from app.json_body import parsed, validated
from app.middleware.error_handlers import DISK_FULL, NO_DATABASE
from app.middleware.forms import FIELD_BYTES
from app.middleware.strict_route import FORM, JSON, StrictRoute, check_media_type, in_turn, json_of
from app.registrations.plan import SentFile
from app.registrations.receiving import MOST_FILES, receive
from app.registrations.service import Asked, Done, Registrations

router = APIRouter(
    prefix="/datasets", tags=["datasets"], responses=NO_DATABASE, route_class=StrictRoute
)

_ASYNC = "respond-async"
_METADATA = TypeAdapter(DatasetCreate)
_CELL = TypeAdapter(OpenOrganelleCreate)

_UPLOAD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["metadata", "images"],
    "properties": {
        "metadata": {
            "type": "string",
            "maxLength": FIELD_BYTES,
            "description": "The fields of `DatasetCreate` as JSON, without `folder` and `uploads`.",
            "examples": [json.dumps({k: v for k, v in DATASET_EXAMPLE.items() if k != "folder"})],
        },
        "images": {
            "type": "array",
            "maxItems": MOST_FILES,
            "items": {"type": "string", "format": "binary"},
            "description": "The images: PNG or TIFF files, or zipped Zarr arrays (N, H, W).",
        },
        "masks": {
            "type": "array",
            "maxItems": MOST_FILES,
            "items": {"type": "string", "format": "binary"},
            "description": "The masks, each with the file name of its image.",
        },
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
        "multipart/form-data": {"schema": _UPLOAD_SCHEMA},
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
        files: tuple[SentFile, ...] = ()
        wanted: DatasetCreate | OpenOrganelleCreate
        in_form = check_media_type(request, JSON, FORM) == FORM
        if in_form:
            with services.uploads.one():
                metadata, files = await receive(request, folder)
            wanted = await json_of(request, _METADATA, metadata.encode())
        else:
            wanted = await in_turn(request, _named, await request.body())
        if isinstance(wanted, DatasetCreate):
            _check_origin(wanted, in_form=in_form)
        asked = Asked(wanted, folder, files, wishes.key, wishes.later)
        taken = await services.heavy.run(registrations.take, asked)
    return _answer(request, response, taken)


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
