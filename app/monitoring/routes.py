"""Tells whether the service is alive and ready, and shows its Prometheus metrics."""

import logging

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request

from app.http.dependencies import Services, ServicesDep
from app.jobs.dependencies import QueueDep
from app.middleware.error_handlers import NO_DATABASE
from app.middleware.strict_route import StrictRoute

logger = logging.getLogger(__name__)

router = APIRouter(tags=["health"], route_class=StrictRoute)


class Readiness(BaseModel):
    """Says whether the service is ready for requests."""

    ready: bool = Field(description="`true` if the service can serve requests.")
    problems: dict[str, str] = Field(
        description="The reason why a part of the service cannot be used, by the name of the part: "
        "`database`, `broker` or `storage`.",
        examples=[{"broker": "the broker cannot be reached: the log of the API holds the reason"}],
    )


@router.get("/livez", response_description="The process runs.")
async def livez() -> dict[str, str]:
    """Answer, to show that the process runs."""
    return {"status": "alive"}


@router.get(
    "/readyz", responses={503: {"model": Readiness, "description": "The service is not ready."}}
)
def readyz(response: Response, services: ServicesDep, queue: QueueDep) -> Readiness:
    """Tell whether the database, the broker and the data folder can be used.

    If one of them cannot, the status is 503 and the answer gives the reasons.
    """
    checks = {
        "database": _database_problem(services),
        "broker": queue.problem(),
        "storage": services.storage.writable_problem(),
    }
    problems = {name: problem for name, problem in checks.items() if problem}
    if problems:
        response.status_code = 503
    return Readiness(ready=not problems, problems=problems)


@router.get(
    "/metrics",
    response_class=Response,
    response_description="The metrics, as text.",
    responses=NO_DATABASE,
)
def metrics(request: Request) -> Response:
    """Show the metrics of the service in the format of Prometheus."""
    body = generate_latest(request.app.state.metrics)
    return Response(body, media_type=CONTENT_TYPE_LATEST)


def _database_problem(services: Services) -> str | None:
    try:
        return services.database.revision_problem()
    except SQLAlchemyError as error:
        logger.warning("database_unreachable error=%s", error)
        return "the database cannot be reached: the log of the API holds the reason"
