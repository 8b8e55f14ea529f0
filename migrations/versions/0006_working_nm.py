"""Trained models have a column for the pixel size at which they see images."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")

_FACTOR = "pixel_size_factor"

_DATASETS = sa.table(
    "datasets", sa.column("id", sa.Uuid()), sa.column("pixel_size_nm", sa.Double())
)
_JOBS = sa.table(
    "jobs",
    sa.column("id", sa.Uuid()),
    sa.column("source_id", sa.Uuid()),
    sa.column("config", JSON),
)
_MODELS = sa.table(
    "trained_models",
    sa.column("id", sa.Uuid()),
    sa.column("job_id", sa.Uuid()),
    sa.column("source_id", sa.Uuid()),
    sa.column("config", JSON),
    sa.column("working_nm", sa.Double()),
)


def upgrade() -> None:
    with op.batch_alter_table("trained_models") as batch:
        batch.add_column(sa.Column("working_nm", sa.Double(), nullable=True))
    for model in _models():
        values: dict[str, Any] = {"working_nm": model.pixel_size_nm * _factor(model.config)}
        if model.of_target:
            # Version 0.1 stored a changed factor for this model, so that the target's pixel size
            # times the factor gave the working pixel size.
            values["config"] = _with_factor(model.config, _factor(model.job_config))
        _write(model.id, values)
    with op.batch_alter_table("trained_models") as batch:
        batch.alter_column("working_nm", existing_type=sa.Double(), nullable=False)


def downgrade() -> None:
    for model in _models(_MODELS.c.working_nm):
        if model.of_target:
            factor = model.working_nm / model.pixel_size_nm
            _write(model.id, {"config": _with_factor(model.config, factor)})
    with op.batch_alter_table("trained_models") as batch:
        batch.drop_column("working_nm")


def _models(*columns: sa.ColumnClause[Any]) -> list[Any]:
    """Return each model with the pixel size of its source and the configuration of its job.

    ``of_target`` is true for a segmenter of the row target-only, whose source is its job's target.
    """
    of_target = sa.func.coalesce(_JOBS.c.source_id != _MODELS.c.source_id, sa.false())
    query = (
        sa.select(
            _MODELS.c.id,
            _MODELS.c.config,
            _DATASETS.c.pixel_size_nm,
            _JOBS.c.config.label("job_config"),
            of_target.label("of_target"),
            *columns,
        )
        .join_from(_MODELS, _JOBS, _JOBS.c.id == _MODELS.c.job_id)
        .join(_DATASETS, _DATASETS.c.id == _MODELS.c.source_id)
    )
    return list(op.get_bind().execute(query).all())


def _factor(config: Any) -> float:
    """Return the factor of a stored configuration; 1 if it holds none."""
    factor = config.get(_FACTOR) if isinstance(config, dict) else None
    return float(factor) if isinstance(factor, (int, float)) else 1.0


def _with_factor(config: Any, factor: float) -> Any:
    return config | {_FACTOR: factor} if isinstance(config, dict) else config


def _write(model_id: Any, values: dict[str, Any]) -> None:
    op.get_bind().execute(sa.update(_MODELS).where(_MODELS.c.id == model_id).values(values))
