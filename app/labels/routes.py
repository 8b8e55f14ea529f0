"""Image-level labels over HTTP."""

from uuid import UUID

from fastapi import APIRouter

from app.dependencies import CursorQuery, LimitQuery, ReadingDep, SessionDep
from app.error_handlers import NO_DATABASE
from app.labels import service
from app.labels.schemas import DeriveRequest, LabelsRead, LabelsSummary, LabelsUpdate
from app.pagination import Page

router = APIRouter(prefix="/datasets/{dataset_id}/labels", tags=["labels"], responses=NO_DATABASE)


@router.put("")
def put_labels(dataset_id: UUID, request: LabelsUpdate, session: SessionDep) -> LabelsSummary:
    """Say which classes are present, absent or unknown in which images, many at once.

    Pseudo-labels never take a class that is absent (Eq. 3 of the paper). Unknown filters nothing.
    An image in which every class is absent takes no part in the target loss.
    """
    return service.update(session, dataset_id, request)


@router.get("")
def get_labels(
    dataset_id: UUID, session: ReadingDep, limit: LimitQuery = 100, cursor: CursorQuery = None
) -> Page[LabelsRead]:
    """The labels of every image, by image number."""
    return service.read(session, dataset_id, limit, cursor)


@router.post("/derive")
def derive_labels(
    dataset_id: UUID, session: SessionDep, request: DeriveRequest | None = None
) -> LabelsSummary:
    """Label images from their masks, replacing what they had."""
    return service.derive(session, dataset_id, request or DeriveRequest())
