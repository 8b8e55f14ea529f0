"""Datasets compared and looked at before anything is trained, over HTTP."""

import io
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from app.http.dependencies import DatasetId, ServicesDep
from app.inspection import comparison, report
from app.inspection.contact_sheet import contact_sheet
from app.inspection.schemas import Compatibility, DatasetInspection
from app.middleware.error_handlers import NO_DATABASE
from app.middleware.strict_route import StrictRoute
from app.storage import Storage

router = APIRouter(
    prefix="/datasets", tags=["datasets"], responses=NO_DATABASE, route_class=StrictRoute
)

SourceId = Annotated[UUID, Path(description="The id of the dataset that would be the source.")]
TargetId = Annotated[UUID, Path(description="The id of the dataset that would be the target.")]


@router.get("/{source_id}/compatibility/{target_id}")
async def compare_datasets(
    source_id: SourceId, target_id: TargetId, services: ServicesDep
) -> Compatibility:
    """Compare two datasets as source and target before anything is trained.

    The answer tells the classes that they share, the effect of their pixel sizes, and whether their
    contrast is inverted. Each finding that a field can mend names that field. At most eight
    sections of each are read, a square of 512 pixels from the middle of each.
    """
    compare = comparison.compare
    return await services.read_heavily(compare, services.storage, source_id, target_id)


@router.get("/{dataset_id}/report")
async def inspect_dataset(dataset_id: DatasetId, services: ServicesDep) -> DatasetInspection:
    """Tell what a dataset holds, and what looks wrong, before anything is trained on it.

    Counts come from the whole dataset. Grey values and suspicious things come from at most 24
    sections, a square of 512 pixels from the middle of each.
    """
    return await services.read_heavily(report.inspect, services.storage, dataset_id)


@router.get("/{dataset_id}/report.html", response_class=HTMLResponse)
async def show_report(dataset_id: DatasetId, services: ServicesDep) -> HTMLResponse:
    """Show the report of a dataset as a page, with a contact sheet of its sections."""
    return HTMLResponse(await services.read_heavily(_page, services.storage, dataset_id))


@router.get(
    "/{dataset_id}/contact-sheet.png",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}},
)
async def draw_contact_sheet(dataset_id: DatasetId, services: ServicesDep) -> Response:
    """Draw up to 24 sections as small pictures, with their masks over them, as PNG."""
    data = await services.read_heavily(_drawn, services.storage, dataset_id)
    return Response(data, media_type="image/png")


def _page(session: Session, storage: Storage, dataset_id: UUID) -> str:
    return report.page(report.inspect(session, storage, dataset_id))


def _drawn(session: Session, storage: Storage, dataset_id: UUID) -> bytes:
    domain = report.open_domain(session, storage, dataset_id)
    session.close()
    buffer = io.BytesIO()
    contact_sheet(domain).save(buffer, "PNG")
    return buffer.getvalue()
