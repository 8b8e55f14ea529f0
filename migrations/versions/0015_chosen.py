"""Trained models may be of a new kind: segmenters that the target's labels chose."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_KINDS = ("style", "segmenter", "stylefilter", "baseline")


def upgrade() -> None:
    _allow((*_KINDS, "chosen"))


def downgrade() -> None:
    """Call models of the new kind baselines, as parts of benchmarks did before.

    The older version shows them and predicts by them with ``stylise=false``.
    """
    models = sa.table("trained_models", sa.column("kind", sa.String()))
    op.execute(sa.update(models).where(models.c.kind == "chosen").values(kind="baseline"))
    _allow(_KINDS)


def _allow(kinds: tuple[str, ...]) -> None:
    """Replace the check of the column ``kind``."""
    name = op.f("ck_trained_models_kind")
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    with op.batch_alter_table("trained_models") as batch:
        batch.drop_constraint(name, type_="check")
        batch.create_check_constraint(name, f"kind IN ({listed})")
