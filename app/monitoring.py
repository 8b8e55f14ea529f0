"""Prometheus: what this process saw, and what the database knows of jobs.

Job figures are read from the database at each scrape, so they are right after any restart and in
every mode; only one API process has to be scraped for them.
"""

from collections.abc import Iterable, Iterator
from http import HTTPMethod
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.database import Database, now_plus
from app.tables import Job, JobStage, JobState

REQUEST_SECONDS = Histogram(
    "stylefilter_http_request_duration_seconds",
    "Time to answer a request, by route template.",
    ["method", "route"],
    registry=None,
)
REQUESTS = Counter(
    "stylefilter_http_requests_total",
    "Requests answered, by route template and status.",
    ["method", "route", "status"],
    registry=None,
)
PREDICT_SECONDS = Histogram(
    "stylefilter_predict_duration_seconds",
    "Time of a prediction: decoding, waiting, networks, encoding.",
    ["stylise"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=None,
)


_FINAL = (JobState.SUCCEEDED, JobState.CANCELLED)
_METHODS = {method.value for method in HTTPMethod}


class JobCollector(Collector):
    """Jobs by state, age of the queue, and durations of stages of jobs that ended for good."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        return []  # registering must not need the database

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("stylefilter_jobs", "Jobs by state.", labels=["state"])
        age = GaugeMetricFamily(
            "stylefilter_queue_age_seconds", "Age of the oldest queued job; 0 without one."
        )
        stages = SummaryMetricFamily(
            "stylefilter_stage_duration_seconds",
            "Finished stages of jobs that succeeded or were cancelled.",
            labels=["stage"],
        )
        with self._database.reading() as session:
            by_state = select(Job.state, func.count()).group_by(Job.state)
            counts = dict(session.execute(by_state).all())
            oldest = session.execute(
                select(func.min(Job.created_at), now_plus()).where(Job.state == JobState.QUEUED)
            ).one()
            durations = session.execute(
                select(JobStage.stage, func.count(), func.sum(JobStage.seconds))
                .join(Job)
                # A counter must not fall, and a job that failed may be retried.
                .where(JobStage.finished.is_(True), Job.state.in_(_FINAL))
                .group_by(JobStage.stage)
            ).all()
        for state in JobState:
            jobs.add_metric([state], counts.get(state, 0))
        age.add_metric([], (oldest[1] - oldest[0]).total_seconds() if oldest[0] else 0)
        for stage, count, seconds in durations:
            stages.add_metric([stage], count, seconds)
        yield from (jobs, age, stages)


def make_registry(database: Database) -> CollectorRegistry:
    registry = CollectorRegistry()
    for metric in (REQUEST_SECONDS, REQUESTS, PREDICT_SECONDS):
        registry.register(metric)
    registry.register(JobCollector(database))
    ProcessCollector(registry=registry)
    return registry


class RequestMetrics:
    """ASGI middleware: counts and times requests by route template, never by path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = perf_counter(), 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            # A client may send any word as the method; it must not grow the list of series.
            method = scope["method"] if scope["method"] in _METHODS else "other"
            REQUEST_SECONDS.labels(method, route).observe(perf_counter() - started)
            REQUESTS.labels(method, route, str(status)).inc()
