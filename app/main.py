"""Builds the HTTP service: its routes, its middleware and the threads that run beside it."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio import to_thread
from fastapi import FastAPI

from app.datasets import routes as datasets
from app.datasets.leftovers import Remover
from app.http.dependencies import THREADS, Services
from app.inspection import routes as inspection
from app.jobs import routes as jobs
from app.jobs import submission_routes as submissions
from app.jobs.events import Broadcaster
from app.jobs.queue import JobQueue
from app.jobs.reconciler import Reconciler
from app.labels import routes as labels
from app.middleware import error_handlers
from app.middleware.body_limit import BodyLimit
from app.middleware.head import HeadAsGet
from app.middleware.host_check import HostCheck
from app.middleware.logs import write_log_lines
from app.middleware.origin_check import OriginCheck
from app.middleware.request_id import RequestId
from app.middleware.shutdown import when_told_to_stop
from app.monitoring import routes as monitoring
from app.monitoring.metrics import RequestMetrics, make_registry
from app.openapi import DocumentedAPI
from app.predictions import routes as predictions
from app.predictions.predictor import Predictor
from app.probes import routes as probes
from app.registrations import routes as registrations
from app.registrations import upload_routes as uploads
from app.registry import routes as registry
from app.results.publisher import Publisher
from app.settings import Settings, read_settings
from app.webhooks.delivery import Webhooks

DESCRIPTION = """Adapt a model that segments organelles to images of another electron microscope.

1. **Register** two datasets: the *source*, whose images have *masks* (a class for each pixel), and
   the *target*, the images of the other microscope.
2. **Label** the images of the target: say for each class whether it is present or absent. This
   takes seconds for an image.
3. **Adapt**: the service trains in a *job*, which goes through *stages*. A *segmenter* (a U-Net)
   learns from the source's masks. A *style model* (the generator of CUT) learns to *stylise* images
   of the target: to redraw them in the source's style. Then the segmenter learns from predictions
   on the stylised target, the *pseudo-labels*. These are never a class that a label calls absent.
   With the preset `best` the job tries several ways instead, and the labels choose the result.
4. **Predict**: send an image of the target, and receive its mask.

A *section* is a whole image as the microscope made it. Sections may be divided into square *tiles*
with labels of their own. An *image* below is a tile or, in a dataset without tiles, a section. A
*split* is the role of a section: `train`, `val` (it chooses the weights to keep), `test` or
`unused`. *DICE*
scores how well a predicted mask covers the true one, from 0 to 1.
"""

_TAGS = [
    {"name": "datasets", "description": "Register, list, show and delete datasets."},
    {"name": "labels", "description": "Say which classes the images of a dataset show."},
    {"name": "jobs", "description": "Train, evaluate and benchmark; watch, stop and resume jobs."},
    {"name": "models", "description": "List and show the models that jobs have trained."},
    {"name": "predict", "description": "Segment an image with a trained model."},
    {"name": "health", "description": "Ask whether the service is alive and ready."},
]


_ROUTES = (
    registrations,
    uploads,
    datasets,
    inspection,
    labels,
    probes,
    submissions,
    jobs,
    registry,
    predictions,
    monitoring,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the service. Its database must be migrated already, by `stylefilter migrate`."""
    settings = settings or read_settings()
    write_log_lines(logging.WARNING)
    app = DocumentedAPI(
        title="StyleFilter Service",
        description=DESCRIPTION,
        openapi_tags=_TAGS,
        version=version("stylefilter-service"),
        lifespan=_lifespan,
        responses=error_handlers.ALWAYS,
    )
    app.state.settings = settings
    for module in _ROUTES:
        app.include_router(module.router)
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(OriginCheck, settings=settings)
    app.add_middleware(HostCheck, settings=settings)
    app.add_middleware(RequestMetrics)
    app.add_middleware(RequestId)
    app.add_middleware(HeadAsGet)
    error_handlers.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    app.state.services = services = Services.open(settings)
    database, storage = services.database, services.storage
    storage.sweep()
    app.state.queue = queue = JobQueue(settings)
    app.state.predictor = predictor = Predictor(settings)
    app.state.broadcaster = broadcaster = Broadcaster(database, storage)
    app.state.metrics = make_registry(database)
    app.state.remover = remover = Remover(database, storage)
    background: list[Reconciler | Webhooks | Publisher | Remover] = [
        Reconciler(database, storage, queue, settings),
        remover,
    ]
    if (secret := settings.webhook_secret) is not None:
        background.append(Webhooks(database, secret, settings.webhook_hosts))
    if settings.results_url is not None:
        background.append(Publisher(database, storage, settings.results_url))
    for threads in background:
        threads.start()
    try:
        with when_told_to_stop(broadcaster.close):
            yield
    finally:
        broadcaster.close()
        for threads in background:
            threads.close()
        predictor.close()
        queue.close()
        database.close()
