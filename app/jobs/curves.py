"""Reads series of metrics, and thins long ones in the database.

A thinned series is a sample: its first point, then each time the first point that is at least a
fixed number of steps later, and its last point. All are points as they were reported, but a peak
between two of them is not shown. Reading a sample takes as long for a short series as for a long
one. To find the least and greatest value of each stretch instead, the database would have to read
all rows, which takes more than a second for each million.
"""

import math
from collections.abc import Iterator, Sequence
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_
from sqlalchemy.orm import Session

from app.jobs.schemas import Series
from app.tables import MetricPoint

NO_NUL = r"^[^\x00]*$"
"""A text without the character NUL, which PostgreSQL refuses to compare."""
_LAST_STEP = (1 << 31) - 1


class MetricsQuery(BaseModel):
    """Asks for series of a job: which ones, which steps, and how many points of each."""

    model_config = ConfigDict(frozen=True)

    stage: str | None = Field(
        None, max_length=200, pattern=NO_NUL, description="Shows only this stage."
    )
    name: str | None = Field(
        None, max_length=250, pattern=NO_NUL, description="Shows only the series of this name."
    )
    points: int = Field(
        1000,
        ge=3,
        le=10_000,
        description="The largest number of points that the answer holds of each series.",
    )
    from_step: int = Field(0, ge=0, le=_LAST_STEP, description="Shows no step before this one.")
    to_step: int | None = Field(
        None, ge=0, le=_LAST_STEP, description="Shows no step after this one."
    )

    @field_validator("to_step", mode="after")
    @classmethod
    def _in_order(cls, value: int | None, info: ValidationInfo) -> int | None:
        first = info.data.get("from_step", 0)
        if value is not None and value < first:
            raise ValueError(
                f"to_step is {value} and from_step is {first}: from_step must not be the larger one"
            )
        return value


def names(session: Session, job_id: UUID) -> Iterator[tuple[str, str]]:
    """Yield stage and name of each series of a job, with one look into the index for each."""
    # Without the step SQLite would find the next name by passing all points of this one.
    key = tuple_(MetricPoint.stage, MetricPoint.name, MetricPoint.step)
    query = (
        select(MetricPoint.stage, MetricPoint.name)
        .where(MetricPoint.job_id == job_id)
        .order_by(MetricPoint.stage, MetricPoint.name)
        .limit(1)
    )
    found = session.execute(query).first()
    while found is not None:
        stage, name = found
        yield stage, name
        found = session.execute(query.where(key > (stage, name, _LAST_STEP))).first()


def read(session: Session, job_id: UUID, stage: str, name: str, asked: MetricsQuery) -> Series:
    """Return the points of a series in the steps that are asked for, at most ``asked.points``."""
    of_series = (
        MetricPoint.job_id == job_id,
        MetricPoint.stage == stage,
        MetricPoint.name == name,
    )
    last = _LAST_STEP if asked.to_step is None else asked.to_step
    in_window = (*of_series, MetricPoint.step >= asked.from_step, MetricPoint.step <= last)
    steps = select(MetricPoint.step).where(*in_window).order_by(MetricPoint.step)
    thinned = session.scalar(steps.offset(asked.points).limit(1)) is not None
    query = steps.add_columns(MetricPoint.value)
    if thinned:
        backwards = steps.order_by(None).order_by(MetricPoint.step.desc())
        ends = [session.scalars(of.limit(1)).one() for of in (steps, backwards)]
        query = _sample(of_series, ends, asked.points)
    rows = session.execute(query).all()
    return Series(
        stage=stage,
        name=name,
        thinned=thinned,
        steps=[step for step, _ in rows],
        values=[value for _, value in rows],
    )


def _sample(
    of_series: tuple[ColumnElement[bool], ...], ends: Sequence[int], points: int
) -> Select[tuple[int, float]]:
    """Return a recursive query that seeks one point after the other, from the first to the last.

    It uses ORDER BY with LIMIT and subqueries instead of min(), max() and a join, so that neither
    database chooses a plan that reads the whole series, whatever its statistics say.
    """
    step = MetricPoint.step
    first, last = ends
    stride = math.ceil((last - first) / (points - 1))
    kept = select(literal(first).label("step")).cte("kept", recursive=True)
    of = select(step).where(*of_series, step >= kept.c.step + stride, step <= last)
    following = of.order_by(step).limit(1).correlate(kept)
    kept = kept.union_all(
        select(func.coalesce(following.scalar_subquery(), last)).where(kept.c.step < last)
    )
    value = select(MetricPoint.value).where(*of_series, step == kept.c.step).correlate(kept)
    return select(kept.c.step, value.scalar_subquery()).order_by(kept.c.step)
