"""Hands the queue and the event streams to the routes of jobs."""

from typing import Annotated, cast

from fastapi import Depends, Header, Request

from app.jobs.curves import NO_NUL
from app.jobs.events import Broadcaster
from app.jobs.queue import JobQueue


def get_queue(request: Request) -> JobQueue:
    return cast(JobQueue, request.app.state.queue)


def get_broadcaster(request: Request) -> Broadcaster:
    return cast(Broadcaster, request.app.state.broadcaster)


QueueDep = Annotated[JobQueue, Depends(get_queue)]
BroadcasterDep = Annotated[Broadcaster, Depends(get_broadcaster)]

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=NO_NUL,
        description="A name that you choose for this request. If you send the same request again "
        "within a day with the same key, it is not done a second time: the answer is the first job "
        "or dataset.",
    ),
]
