"""The answers that rest on probes, over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.http.dependencies import DatasetId, LimitQuery, ServicesDep
from app.middleware.error_handlers import NO_DATABASE
from app.middleware.strict_route import StrictRoute
from app.probes import next_tiles, sources
from app.probes.schemas import NextTiles, SuggestedSources

router = APIRouter(
    prefix="/datasets/{dataset_id}", tags=["labels"], responses=NO_DATABASE, route_class=StrictRoute
)


@router.get("/next-tiles")
async def get_next_tiles(
    dataset_id: DatasetId,
    services: ServicesDep,
    limit: Annotated[
        int, Query(ge=1, le=1000, description="The largest number of tiles in the answer.")
    ] = 16,
) -> NextTiles:
    """Say which training tiles to label next, and whether more labels are worth it.

    After a probe, tiles come first about which the candidates disagree; classes that few labels
    call present count more, and the tiles are spread over the sections. Before a probe the tiles
    are spread over sections and grey values. The answer counts the labels that are there now.
    """
    ask = next_tiles.next_tiles
    return await services.read_heavily(ask, services.storage, dataset_id, limit)


@router.get("/suggested-sources")
async def get_suggested_sources(
    dataset_id: DatasetId, services: ServicesDep, limit: LimitQuery = 100
) -> SuggestedSources:
    """Rank the registered sources and their models for a target, best first.

    The latest probe of the target has asked the models, and the labels of the target that are
    there now score them. A near source is often worth more than an adaptation from a far one.
    """
    ask = sources.suggested_sources
    return await services.read_heavily(ask, services.storage, dataset_id, limit)
