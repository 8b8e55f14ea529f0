"""Asks for the results of jobs to be published. The request is a row, so that it is not lost."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.tables import Publication


def ask(session: Session, job_ids: Iterable[UUID]) -> None:
    """Ask for the results of these jobs, unless that was done before; the caller commits."""
    asked = set(job_ids)
    query = select(Publication.job_id).where(Publication.job_id.in_(asked))
    for job_id in asked - set(session.scalars(query)):
        try:
            with session.begin_nested():
                session.add(Publication(job_id=job_id))
        except IntegrityError:  # another job that reuses the same model asked at the same moment
            continue
