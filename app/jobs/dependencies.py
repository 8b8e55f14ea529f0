"""Hands the queue and the event streams to the routes of jobs."""

from typing import Annotated, cast

from fastapi import Depends, Request

from app.jobs.events import Broadcaster
from app.jobs.queue import JobQueue


def get_queue(request: Request) -> JobQueue:
    return cast(JobQueue, request.app.state.queue)


def get_broadcaster(request: Request) -> Broadcaster:
    return cast(Broadcaster, request.app.state.broadcaster)


QueueDep = Annotated[JobQueue, Depends(get_queue)]
BroadcasterDep = Annotated[Broadcaster, Depends(get_broadcaster)]
