"""Datasets compared and looked at before anything is trained, over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path

from app.dependencies import ReadingDep, ServicesDep
from app.inspection import comparison
from app.inspection.schemas import Compatibility
from app.middleware.error_handlers import NO_DATABASE

router = APIRouter(prefix="/datasets", tags=["datasets"], responses=NO_DATABASE)

SourceId = Annotated[UUID, Path(description="The id of the dataset that would be the source.")]
TargetId = Annotated[UUID, Path(description="The id of the dataset that would be the target.")]


@router.get("/{source_id}/compatibility/{target_id}")
def compare_datasets(
    source_id: SourceId, target_id: TargetId, session: ReadingDep, services: ServicesDep
) -> Compatibility:
    """Compare two datasets as source and target before anything is trained.

    The answer tells the classes that they share, the effect of their pixel sizes, and whether their
    contrast is inverted. Each finding that a field can mend names that field. At most eight
    sections of each are read, a square of 512 pixels from the middle of each.
    """
    return comparison.compare(session, services.storage, source_id, target_id)
