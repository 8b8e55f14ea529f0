"""Image-level labels over HTTP."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from app.dependencies import (
    CursorQuery,
    DatasetId,
    LimitQuery,
    ReadingDep,
    ServicesDep,
    SessionDep,
)
from app.errors import UnsupportedMedia
from app.labels import service
from app.labels.schemas import SHEET_EXAMPLE, DeriveRequest, LabelsRead, LabelsSummary
from app.middleware.error_handlers import NO_DATABASE
from app.pagination import Page

router = APIRouter(prefix="/datasets/{dataset_id}/labels", tags=["labels"], responses=NO_DATABASE)


_WRITERS = {"application/json": service.put_json, "text/csv": service.put_sheet}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/LabelsUpdate"}},
        "text/csv": {"schema": {"type": "string"}, "example": SHEET_EXAMPLE},
    },
}


@router.put("", response_model=LabelsSummary, openapi_extra={"requestBody": _BODY})
async def put_labels(
    dataset_id: DatasetId, request: Request, services: ServicesDep
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

    If one label is wrong, none is written, and the refusal lists up to 100 entries or lines that
    are wrong. An image that comes twice is wrong.
    """
    body = await request.body()
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _WRITERS:
        raise UnsupportedMedia(
            f"the request has the content type {media_type!r}: send labels as "
            f"{' or '.join(_WRITERS)}"
        )
    # Parsing takes seconds if there are many labels, and other requests are answered meanwhile.
    return await run_in_threadpool(_WRITERS[media_type], services.database, dataset_id, body)


@router.get("")
def get_labels(
    dataset_id: DatasetId,
    session: ReadingDep,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[LabelsRead]:
    """List the images with their labels, in the order of their numbers."""
    return service.read(session, dataset_id, limit, cursor)


@router.post("/derive")
def derive_labels(
    dataset_id: DatasetId, session: SessionDep, request: DeriveRequest | None = None
) -> LabelsSummary:
    """Label images by their masks. The new labels replace those that the images had."""
    return service.derive(session, dataset_id, request or DeriveRequest())
