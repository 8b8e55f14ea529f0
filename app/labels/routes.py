"""Image-level labels over HTTP."""

from fastapi import APIRouter

from app.dependencies import CursorQuery, DatasetId, LimitQuery, ReadingDep, SessionDep
from app.labels import service
from app.labels.schemas import DeriveRequest, LabelsRead, LabelsSummary, LabelsUpdate
from app.middleware.error_handlers import NO_DATABASE
from app.pagination import Page

router = APIRouter(prefix="/datasets/{dataset_id}/labels", tags=["labels"], responses=NO_DATABASE)


@router.put("")
def put_labels(dataset_id: DatasetId, request: LabelsUpdate, session: SessionDep) -> LabelsSummary:
    """Label many images at once: for each class, an image is present, absent or unknown.

    While the adaptation trains, it predicts the class of each pixel of the target, a pseudo-label,
    and learns from it. A pseudo-label never takes a class that the image's label calls absent
    (Equation 3 of the paper). Present and unknown exclude nothing. An adaptation learns nothing
    from an image in which each class is absent.
    """
    return service.update(session, dataset_id, request)


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
