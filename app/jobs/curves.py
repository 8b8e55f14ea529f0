"""Series of metrics, thinned in the database: reading one takes as long at any length.

Finding the least and greatest value of every stretch would read all rows, more than a second for
each million. So a thinned series is a sample: the first point, then each time the first that is at
least a fixed number of steps later, and the last. All are points as they were reported; a peak
between two of them is not shown.
"""

import math
from collections.abc import Iterator
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_
from sqlalchemy.orm import Session

from app.jobs.schemas import Series
from app.tables import MetricPoint

_LAST_STEP = (1 << 31) - 1


def names(session: Session, job_id: UUID) -> Iterator[tuple[str, str]]:
    """Stage and name of each series of a job, in order: one look into the index for each."""
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


def read(session: Session, job_id: UUID, stage: str, name: str, points: int) -> Series:
    """A series, with at most so many of its points."""
    of_series = (
        MetricPoint.job_id == job_id,
        MetricPoint.stage == stage,
        MetricPoint.name == name,
    )
    steps = select(MetricPoint.step).where(*of_series).order_by(MetricPoint.step)
    thinned = session.scalar(steps.offset(points).limit(1)) is not None
    every = steps.add_columns(MetricPoint.value)
    rows = session.execute(_sample(session, of_series, points) if thinned else every).all()
    return Series(
        stage=stage,
        name=name,
        thinned=thinned,
        steps=[step for step, _ in rows],
        values=[value for _, value in rows],
    )


def _sample(
    session: Session, of_series: tuple[ColumnElement[bool], ...], points: int
) -> Select[tuple[int, float]]:
    """A recursion that seeks one point after the other.

    ORDER BY with LIMIT and subqueries instead of min(), max() and a join: so no plan of either
    database reads the series, whatever its statistics say.
    """
    step = MetricPoint.step
    of = select(step).where(*of_series).limit(1)
    first = session.scalars(of.order_by(step)).one()
    last = session.scalars(of.order_by(step.desc())).one()
    stride = math.ceil((last - first) / (points - 1))
    kept = select(literal(first).label("step")).cte("kept", recursive=True)
    following = of.where(step >= kept.c.step + stride).order_by(step).correlate(kept)
    kept = kept.union_all(
        select(func.coalesce(following.scalar_subquery(), last)).where(kept.c.step < last)
    )
    value = select(MetricPoint.value).where(*of_series, step == kept.c.step).correlate(kept)
    return select(kept.c.step, value.scalar_subquery()).order_by(kept.c.step)
