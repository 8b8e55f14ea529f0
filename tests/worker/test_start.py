"""What a job says of its first stage before its trainer has loaded torch."""

from contextlib import closing
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.cli.synthetic.domain import CLASSES
from app.jobs.request_schemas import EvaluateRequest, PretrainRequest, TrainStyleRequest
from app.jobs.transitions import Lease, claim, hand_back
from app.tables import JobEvent, JobStage
from tests.app.records import add_model
from tests.worker.conftest import Service
from worker.start import announce
from worker.tasks import JobRunner


def told(service: Service, job_id: UUID) -> list[tuple[str, Any]]:
    """States by name; stages with step, total and whether they are done."""
    query = select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id)
    found: list[tuple[str, Any]] = []
    with service.database.reading() as session:
        for event in session.scalars(query):
            if event.kind == "state":
                found.append(("state", event.data["state"]))
            if event.kind == "stage":
                names = ("stage", "attempt", "step", "total", "done")
                found.append(("stage", tuple(event.data[name] for name in names)))
    return found


def train_style(service: Service, **fields: Any) -> UUID:
    pair = {"source": service.source, "target": service.target, "preset": "smoke"}
    return service.submit(TrainStyleRequest.model_validate(pair | fields))


def begun(service: Service, job_id: UUID) -> tuple[Lease, list[Any]]:
    """Claim this job and announce it; what was told of its stages."""
    lease = claim(service.database, "here", 60)
    assert lease is not None
    assert lease.job_id == job_id
    announce(service.database, lease, 1)
    return lease, [data for kind, data in told(service, job_id) if kind == "stage"]


@pytest.mark.processes
def test_a_stage_is_told_before_its_trainer_starts(service: Service) -> None:
    job_id = service.submit(PretrainRequest(source=service.source, preset="smoke"))
    before: list[tuple[str, Any]] = []

    class Runner(JobRunner):
        def supervise(self, *arguments: Any) -> int:
            before.extend(told(service, job_id))
            return super().supervise(*arguments)

    with closing(Runner(service.settings)) as runner:
        runner.run_job(str(job_id))
    start = [("state", "queued"), ("state", "running"), ("stage", ("pretrain", 1, 0, 6, False))]
    assert before == start
    assert told(service, job_id) == [
        *start,
        ("stage", ("pretrain", 1, 1, 6, False)),
        ("stage", ("pretrain", 1, 6, 6, True)),
        ("state", "succeeded"),
    ]
    # The model that is there now may spare the next job this stage.
    again = service.submit(PretrainRequest(source=service.source, preset="smoke"))
    assert begun(service, again)[1] == []
    assert service.row(again).stage is None


def test_the_row_shows_the_first_stage(service: Service) -> None:
    job_id = train_style(service)
    assert begun(service, job_id)[1] == [("style", 1, 0, 4, False)]
    row = service.row(job_id)
    assert (row.stage, row.step, row.total, row.steps_per_second) == ("style", 0, 4, None)
    source, target = service.source, service.target
    model = add_model(service.database, job_id, str(source), class_names=list(CLASSES))
    request = EvaluateRequest(model=model, dataset=target, split="val", stylise=False)
    assert begun(service, service.submit(request))[1] == [("evaluate", 1, 0, 1, False)]


def test_a_stage_that_may_be_spared_is_left_to_the_trainer(service: Service) -> None:
    add_model(service.database, train_style(service), str(service.source), kind="style")
    service.cancel(service.models()[0].job_id)
    # Whether it was trained on the same data and with the same seed, the trainer finds out.
    assert begun(service, train_style(service, config={"seed": 1}))[1] == []
    longer = train_style(service, config={"style": {"steps": 5}})
    assert begun(service, longer)[1] == [("style", 1, 0, 5, False)]
    assert begun(service, train_style(service, reuse=False))[1] == [("style", 1, 0, 4, False)]


def test_an_attempt_that_goes_on_leaves_what_the_row_shows(service: Service) -> None:
    job_id = train_style(service)
    lease, stages = begun(service, job_id)
    with service.database.session() as session:
        hand_back(session, lease)
        session.commit()
    lease, stages = begun(service, job_id)
    # Nothing was trained yet.
    assert stages == [("style", 1, 0, 4, False), ("style", 2, 0, 4, False)]
    with service.database.session() as session:
        stage = {"stage": "style", "step": 3, "total": 4}
        session.add(JobStage(job_id=job_id, position=0, seconds=1, finished=False, **stage))
        hand_back(session, lease)
        session.commit()
    assert begun(service, job_id)[1] == stages


def test_an_old_lease_says_nothing(service: Service) -> None:
    job_id = service.adapt()
    lease = claim(service.database, "here", 60)
    assert lease is not None
    announce(service.database, Lease(job_id, lease.attempt - 1), 1)
    assert [kind for kind, _ in told(service, job_id)] == ["state", "state"]
