"""Announce an attempt's first stage before its trainer has loaded torch, which takes seconds."""

from sqlalchemy import select

from app.database import Database
from app.jobs.preflight import first_stage
from app.jobs.transitions import Lease, record, write
from app.tables import Job, JobStage


def announce(database: Database, lease: Lease, num_processes: int) -> None:
    """Write the first stage and its number of steps, unless the job has reported a stage before."""
    with database.session() as session:
        began = select(JobStage.stage).where(JobStage.job_id == lease.job_id)
        if session.scalar(began.limit(1)) is not None:
            return
        job = session.get_one(Job, lease.job_id)
        first = first_stage(session, job, job.usable_config(), num_processes=num_processes)
        if first is None:
            return
        stage, total = first
        if write(session, lease, stage=stage, step=0, total=total) is None:
            return
        told = {"stage": stage, "step": 0, "total": total, "done": False, "attempt": lease.attempt}
        record(session, lease.job_id, "stage", told)
        session.commit()
