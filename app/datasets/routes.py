"""Datasets over HTTP."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response

from app.datasets import service
from app.datasets.dependencies import RemoverDep
from app.datasets.schemas import DatasetRead, DatasetReport, ImageRead
from app.http.dependencies import CursorQuery, DatasetId, LimitQuery, ReadingDep, ServicesDep
from app.http.pagination import LARGEST_NUMBER, Page
from app.middleware.error_handlers import NO_DATABASE
from app.middleware.strict_route import StrictRoute

router = APIRouter(
    prefix="/datasets", tags=["datasets"], responses=NO_DATABASE, route_class=StrictRoute
)

NumberPath = Annotated[
    int, Path(ge=0, le=LARGEST_NUMBER, description="The number of the image, from 0.")
]


@router.get("")
def list_datasets(
    session: ReadingDep,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
    all_versions: Annotated[
        bool, Query(description="`true` lists earlier versions of datasets too.")
    ] = False,
) -> Page[DatasetRead]:
    """List the registered datasets, newest first; of each dataset its newest version."""
    return service.list_datasets(session, limit, cursor, all_versions=all_versions)


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
async def preview_image(
    dataset_id: DatasetId,
    n: NumberPath,
    services: ServicesDep,
    layer: Annotated[
        Literal["images", "masks"], Query(description="`images` shows the image, `masks` its mask.")
    ] = "images",
) -> Response:
    """Return an image, or its mask, as PNG.

    A pixel of a mask holds the id of its class, or 255 where the mask ignores the pixel.
    """
    data = await services.read_heavily(service.preview, services.storage, dataset_id, n, layer)
    # A dataset never changes, so a browser may keep the picture.
    return Response(data, media_type="image/png", headers={"Cache-Control": "max-age=86400"})


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: DatasetId, services: ServicesDep, remover: RemoverDep) -> None:
    """Delete a dataset, unless an unfinished job uses it. Models trained on it stay.

    From this moment the dataset cannot be found. Its files are removed soon after the answer.
    """
    service.remove(services.database, dataset_id)
    remover.tell()
