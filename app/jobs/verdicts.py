"""Reads the verdicts that jobs have stored, and finds the models that they name."""

from uuid import UUID

from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.columns import stored_object
from app.errors import Conflict, NotFound
from app.tables import ADAPTED, Job, JobKind, JobState, ModelKind, TrainedModel
from models.choice.verdict import Outcome, Verdict
from models.table1.methods import ROWS

_ADAPTING = (JobKind.ADAPT, JobKind.STYLEFILTER)
"""The kinds of jobs that always have a verdict."""

_KINDS = (*_ADAPTING, JobKind.METHOD)
"""The kinds of jobs that may have one: of a benchmark's parts, the one that chooses by labels."""


class ModelToUse(BaseModel):
    """The fields of `POST /predict` with which the verdict's candidate segments an image."""

    model: UUID = Field(description="The id of the model that segments.")
    stylise: bool = Field(description="`true` if the image is stylised first.")
    style_model: UUID | None = Field(
        description="The id of the model that stylises; none if nothing is stylised."
    )


class VerdictRead(BaseModel):
    """The judgement of the target's labels about the models of a job, and the model to use."""

    verdict: Verdict = Field(description="The comparison of the candidates by the labels.")
    use: ModelToUse | None = Field(description="The model to use; none if it was deleted.")


def read(session: Session, job: Job) -> VerdictRead:
    """Return the verdict of a job.

    Raises:
        NotFound: jobs of this kind have none, or the job ended before verdicts existed.
        Conflict: the job has not succeeded.
    """
    if job.kind not in _KINDS:
        raise NotFound(
            f"job {job.id} is of kind {job.kind} and has no verdict: name a job of kind "
            f"{' or '.join(_KINDS)}"
        )
    if job.state != JobState.SUCCEEDED:
        raise Conflict(
            f"job {job.id} is {job.state}: a verdict is given when its job succeeds, so ask again "
            "then"
        )
    try:
        verdict = Verdict.model_validate(stored_object(job.result).get("verdict"))
    except ValidationError as error:
        raise NotFound(
            f"job {job.id} has no verdict that this version can read: submit it again; stages "
            "that were trained before are not trained again"
        ) from error
    return VerdictRead(verdict=verdict, use=_to_use(session, job, verdict.use))


def count_outcomes(session: Session) -> dict[Outcome, int]:
    """Count the verdicts of the jobs that have one, by outcome."""
    outcome = Job.result["verdict"]["outcome"].as_string()
    query = select(outcome, func.count()).where(
        Job.kind.in_(_ADAPTING), Job.state == JobState.SUCCEEDED
    )
    return dict(session.execute(query.group_by(outcome)).all())


def _to_use(session: Session, job: Job, name: str) -> ModelToUse | None:
    """Return the model of a candidate; those of the paper's method are rows of Table 1."""
    adapted = _adapted(session, job)
    if adapted is None:
        return None
    # Whatever was chosen is this model, with its view; parts of a benchmark once had baselines.
    if adapted.kind == ModelKind.CHOSEN or job.kind == JobKind.METHOD:
        return ModelToUse(model=adapted.id, stylise=False, style_model=None)
    row = ROWS.get(name)
    if row is None:
        return None
    segmenter = adapted.id if row.method.adapt is not None else adapted.segmenter_model_id
    if segmenter is None:
        return None
    stylise = row.tested_on == "cut"
    return ModelToUse(
        model=segmenter,
        stylise=stylise,
        style_model=adapted.style_model_id if stylise else None,
    )


def _adapted(session: Session, job: Job) -> TrainedModel | None:
    """Return the adapted model that a job has made, or has taken over."""
    reused = stored_object(job.result).get("reused")
    taken = [
        UUID(str(model["model"]))
        for model in (reused if isinstance(reused, list) else [])
        if isinstance(model, dict) and model.get("kind") in ADAPTED
    ]
    query = select(TrainedModel).where(TrainedModel.kind.in_(ADAPTED))
    if taken:
        return session.scalar(query.where(TrainedModel.id == taken[0]))
    return session.scalar(query.where(TrainedModel.job_id == job.id))
