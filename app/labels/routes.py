"""Image-level labels over HTTP."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from app.database import Database
from app.errors import Invalid, NotAcceptable, ProblemItem
from app.http.dependencies import CursorQuery, DatasetId, LimitQuery, ReadingDep, ServicesDep
from app.http.pagination import LARGEST_NUMBER, Page
from app.labels import service
from app.labels.changes import AskedChange, Version
from app.labels.schemas import (
    POINTS_EXAMPLE,
    SHEET_EXAMPLE,
    ChangeNote,
    ChangeRead,
    DerivedSummary,
    DeriveRequest,
    LabelsRead,
    LabelsSummary,
    TileSizesRead,
)
from app.middleware.body_limit import LABELS_BYTES
from app.middleware.error_handlers import DISK_FULL, NO_DATABASE
from app.middleware.strict_route import StrictRoute, check_media_type

router = APIRouter(
    prefix="/datasets/{dataset_id}", tags=["labels"], responses=NO_DATABASE, route_class=StrictRoute
)


_JSON, _CSV = "application/json", "text/csv"
_MEMORY_BYTES = 1 << 23
_PIECE_BYTES = 1 << 16

_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        _JSON: {"schema": {"$ref": "#/components/schemas/LabelsUpdate"}},
        _CSV: {
            "schema": {"type": "string", "maxLength": LABELS_BYTES},
            "example": SHEET_EXAMPLE,
        },
    },
}
_TAGGED: dict[str, Any] = {
    "headers": {
        "ETag": {
            "description": "The version of the labels. Send it as `If-Match` with a change that "
            "must not be made if somebody else has changed the labels.",
            "schema": {"type": "string"},
        }
    }
}
_TABLE: dict[str, Any] = _TAGGED | {
    "content": {_CSV: {"schema": {"type": "string"}, "example": SHEET_EXAMPLE}}
}


@dataclass(frozen=True)
class AskedRead:
    """The part of the labels that is asked for, and its form."""

    table: bool
    limit: int
    cursor: str | None


def asked_change(
    note: Annotated[ChangeNote, Query()],
    if_match: Annotated[
        str | None,
        Header(
            max_length=1000,
            description="The `ETag` of the labels that you know. If they have changed since, the "
            "service answers 412 and writes nothing.",
        ),
    ] = None,
) -> AskedChange:
    return AskedChange(note.by, note.seconds, if_match)


def asked_read(
    request: Request,
    form: Annotated[
        Literal["json", "csv"] | None,
        Query(alias="format", description="The form of the answer, in place of `Accept`."),
    ] = None,
    accept: Annotated[
        str, Header(max_length=1000, description=f"The form of the answer: {_JSON} or {_CSV}.")
    ] = "",
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> AskedRead:
    table = form == "csv" or (form is None and _wants_table(accept))
    paged = {"limit", "cursor"} & request.query_params.keys()
    if table and paged:
        message = "a table holds all images: leave limit and cursor out, or ask for JSON"
        items = [ProblemItem(where=f"query.{name}", message=message) for name in sorted(paged)]
        raise Invalid(message, items)
    return AskedRead(table, limit, cursor)


ChangeDep = Annotated[AskedChange, Depends(asked_change)]
ReadDep = Annotated[AskedRead, Depends(asked_read)]


@router.put("/labels", responses={200: _TAGGED}, openapi_extra={"requestBody": _BODY})
async def put_labels(
    dataset_id: DatasetId,
    request: Request,
    response: Response,
    services: ServicesDep,
    asked: ChangeDep,
) -> LabelsSummary:
    """Label many images at once: for each class, an image is present, absent or unknown.

    While the adaptation trains, it predicts the class of each pixel of the target, a pseudo-label,
    and learns from it. A pseudo-label never takes a class that the image's label calls **absent**
    (Equation 3 of the paper). This is the only effect of labels on StyleFilter: **present** and
    **unknown** exclude nothing. Present is used by other methods of the table of results, by
    `style.select_on: labels`, and by checks. An adaptation learns nothing from an image in which
    each class is absent.

    The body is JSON, or a table of CSV as spreadsheets save it. The first line of a table names its
    columns. The first column says which image a line is for. It is called `image` (a number, or
    the name of a section or of its file), `number`, or `section`; the column `tile` may follow
    `section`. Each other column is called by a class. A cell holds 1 (or present, yes, true), 0 (or
    absent, no, false), or nothing (or unknown), which means unknown. A class without a column keeps
    its labels. Cells are separated by commas, semicolons or tabs, and the text is UTF-8.

    **Points** say more: a pixel of a section is of a class (`present`), or is not (`absent`). The
    image that holds a present point is labelled present. It is refused to call such an image absent
    or unknown: take the point away first, by sending it as `unknown`. A table of points has the
    columns `section`, `y`, `x`, `class` and perhaps `label`. Points that are not named stay.

    If one label is wrong, none is written, and the refusal lists up to 100 entries or lines that
    are wrong. An image that comes twice is wrong.
    """
    with services.uploads.one():
        body = await request.body()
        table = check_media_type(request, _JSON, _CSV) == _CSV
        put = service.put_sheet if table else service.put_json
        # Many labels take seconds, in which other requests are answered.
        summary, version = await services.heavy.run(put, services.database, dataset_id, body, asked)
    _tag(response, version)
    return summary


@router.get("/labels", response_model=Page[LabelsRead], responses=DISK_FULL | {200: _TABLE})
def get_labels(
    dataset_id: DatasetId, response: Response, services: ServicesDep, asked: ReadDep
) -> Page[LabelsRead] | Response:
    """List the images with their labels, in the order of their numbers.

    As CSV the answer is a table of all images, in the form that PUT takes: 1 is present, 0 is
    absent, and an empty cell is unknown. A name that a spreadsheet would take for a formula has an
    apostrophe before it; PUT takes it away.
    """
    if asked.table:
        return _table(services.database, dataset_id)
    with services.database.reading() as session:
        _tag(response, service.version(session, dataset_id))
        return service.read(session, dataset_id, asked.limit, asked.cursor)


@router.get(
    "/labels/points",
    response_class=Response,
    responses={
        200: _TAGGED
        | {
            "content": {_CSV: {"schema": {"type": "string"}, "example": POINTS_EXAMPLE}},
            "description": "The points.",
        }
    },
)
def get_points(dataset_id: DatasetId, services: ServicesDep) -> Response:
    """Return all points of a dataset as a table of CSV, in the form that PUT of labels takes.

    1 is present, and 0 is absent.
    """
    table, version = service.points_table(services.database, dataset_id)
    response = Response(table, media_type=_CSV)
    response.headers["Content-Disposition"] = f'attachment; filename="points_{dataset_id}.csv"'
    _tag(response, version)
    return response


@router.post("/labels/derive", responses={200: _TAGGED})
def derive_labels(
    dataset_id: DatasetId,
    response: Response,
    services: ServicesDep,
    asked: ChangeDep,
    request: DeriveRequest | None = None,
) -> DerivedSummary:
    """Label images by their masks. The new labels replace those that the images had.

    A class is present in an image whose mask has enough pixels of it, else absent.
    """
    summary, version = service.derive(
        services.database, dataset_id, request or DeriveRequest(), asked
    )
    _tag(response, version)
    return summary


@router.get("/labels/history")
def get_history(
    dataset_id: DatasetId,
    session: ReadingDep,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[ChangeRead]:
    """List the changes of a dataset's labels, newest first."""
    return service.history(session, dataset_id, limit, cursor)


@router.get("/tile-sizes")
def get_tile_sizes(
    dataset_id: DatasetId,
    response: Response,
    services: ServicesDep,
    min_pixels: Annotated[
        int,
        Query(
            ge=1,
            le=LARGEST_NUMBER,
            description="The least number of pixels by which a tile shows a class.",
        ),
    ] = 1,
) -> TileSizesRead:
    """Measure in the masks how many tiles of 64, 128, 256 and 512 pixels show each class.

    Use it to choose `tile_px` before you register images that shall be labelled. If they have no
    masks, ask for the tile sizes of the source, and compare the sizes in nanometres.
    """
    # A dataset never changes, so a browser may keep the answer.
    response.headers["Cache-Control"] = "max-age=86400"
    return service.measured_tiles(services.database, services.storage, dataset_id, min_pixels)


def _tag(response: Response, version: Version) -> None:
    response.headers["ETag"] = f'"{version.tag}"'


def _wants_table(accept: str) -> bool:
    """Tell whether the first form in the header that can be sent is the table."""
    for part in accept.split(","):
        name = part.partition(";")[0].strip().lower()
        if name in (_CSV, "text/*"):
            return True
        if name in (_JSON, "application/*", "*/*", ""):
            return False
    raise NotAcceptable(
        f"the service cannot send labels as {accept[:100]}: ask for {_JSON} or {_CSV}"
    )


def _table(database: Database, dataset_id: UUID) -> Response:
    # Written before it is sent, so that a slow client holds no connection to the database.
    with ExitStack() as closing:
        file = closing.enter_context(SpooledTemporaryFile(max_size=_MEMORY_BYTES))
        version = service.write_table(database, dataset_id, file)
        length = file.tell()
        closing.pop_all()  # the answer closes the file
    file.seek(0)
    name = f"labels_{dataset_id}.csv"
    headers = {
        "Content-Length": f"{length}",
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    response = StreamingResponse(_pieces(file), media_type=_CSV, headers=headers)
    _tag(response, version)
    return response


def _pieces(file: SpooledTemporaryFile[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
