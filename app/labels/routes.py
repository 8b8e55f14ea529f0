"""Image-level labels over HTTP."""

from fastapi import APIRouter

from app.dependencies import CursorQuery, DatasetId, LimitQuery, ReadingDep, SessionDep
from app.error_handlers import NO_DATABASE
from app.labels import service
from app.labels.schemas import DeriveRequest, LabelsRead, LabelsSummary, LabelsUpdate
from app.pagination import Page

router = APIRouter(prefix="/datasets/{dataset_id}/labels", tags=["labels"], responses=NO_DATABASE)


@router.put("")
def put_labels(dataset_id: DatasetId, request: LabelsUpdate, session: SessionDep) -> LabelsSummary:
    """Say which classes are present, absent or unknown in which images, many at once.

    A class that is absent never becomes a pseudo-label, which is a prediction that training takes
    for a mask (Eq. 3 of the paper). An unknown class may. An image in which every class is absent
    takes no part in training on the target.
    """
    return service.update(session, dataset_id, request)


@router.get("")
def get_labels(
    dataset_id: DatasetId, session: ReadingDep, limit: LimitQuery = 100, cursor: CursorQuery = None
) -> Page[LabelsRead]:
    """List the labels of every image, by its number."""
    return service.read(session, dataset_id, limit, cursor)


@router.post("/derive")
def derive_labels(
    dataset_id: DatasetId, session: SessionDep, request: DeriveRequest | None = None
) -> LabelsSummary:
    """Label images from their masks, replacing what they had."""
    return service.derive(session, dataset_id, request or DeriveRequest())
