"""Is the process alive, is it ready, what does it count."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request

from app.dependencies import Services, ServicesDep
from app.error_handlers import NO_DATABASE
from app.jobs.dependencies import QueueDep

router = APIRouter(tags=["health"])


class Readiness(BaseModel):
    """Whether requests can be served, and if not, why."""

    ready: bool = Field(description="`true` if requests can be served.")
    problems: dict[str, str] = Field(
        description="What is not usable, and why.",
        examples=[{"broker": "broker is not reachable: refused"}],
    )


@router.get("/livez")
def livez() -> dict[str, str]:
    """Tell that the process answers."""
    return {"status": "alive"}


@router.get(
    "/readyz", responses={503: {"model": Readiness, "description": "The service is not ready."}}
)
def readyz(response: Response, services: ServicesDep, queue: QueueDep) -> Readiness:
    """Tell whether database, broker and data folder are usable; 503 gives the reasons."""
    checks = {
        "database": _database_problem(services),
        "broker": queue.problem(),
        "storage": services.storage.writable_problem(),
    }
    problems = {name: problem for name, problem in checks.items() if problem}
    if problems:
        response.status_code = 503
    return Readiness(ready=not problems, problems=problems)


@router.get("/metrics", response_class=Response, responses=NO_DATABASE)
def metrics(request: Request) -> Response:
    """Show the metrics that Prometheus collects."""
    body = generate_latest(request.app.state.metrics)
    return Response(body, media_type=CONTENT_TYPE_LATEST)


def _database_problem(services: Services) -> str | None:
    try:
        return services.database.revision_problem()
    except SQLAlchemyError as error:
        return f"database is not reachable: {str(error).splitlines()[0]}"
