"""What is kept of a job's networks: files, what chose them, and what need not be kept again."""

from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from app.jobs.result import ReusedModel
from app.tables import ModelKind
from models.checkpoint import load_metrics, load_segmenter
from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain
from models.metadata import RAW
from models.networks.unet import UNet
from models.training.device import resolve
from models.training.progress import Stage
from models.training.resume import Checkpoints
from tests.models.domains import equal_weights, square_domain
from worker.outcome import Keeper, Selection, Surroundings
from worker.progress import Silent

SMOKE = preset("smoke")
BEST = {"dice/mean": 0.5, "source_dice/mean": 0.75, "selected_step": 3.0}
LAST = {"loss": 1.0, "selected_step": 6.0}


class Summaries(Silent):
    """Tells of stages what a recorder would that was told of their steps."""

    def __init__(self, **summaries: Mapping[str, float]) -> None:
        self._summaries = summaries

    def summary(self, stage: str) -> Mapping[str, float]:
        return self._summaries.get(stage, {})


@pytest.fixture
def domains(tmp_path: Path) -> tuple[Domain, Domain]:
    target = square_domain(tmp_path / "target.zarr", bright=False)
    return square_domain(tmp_path / "source.zarr"), target


def keeper(
    folder: Path,
    config: StyleFilterConfig = SMOKE,
    found: tuple[ReusedModel, Path] | None = None,
    **summaries: Mapping[str, float],
) -> Keeper:
    """Return one whose stages have asked, by their names, for what is there already."""
    made = Keeper(
        Surroundings(
            folder=folder,
            recorder=Summaries(**summaries),
            checkpoints=Checkpoints(folder / "checkpoints"),
            reuse=lambda kind, _: found if found is not None and found[0].kind == kind else None,
        ),
        config,
    )
    stages: tuple[Stage, ...] = ("style", "pretrain", "adapt")
    for stage in stages:
        made.run.finished(stage, f"of {stage}")
    return made


@pytest.mark.parametrize(
    ("select_on", "summary", "selected"),
    [
        ("target_val", BEST, Selection("target_val", 3)),
        ("source_val", BEST, Selection("source_val", 3)),
        ("last", BEST, Selection("last", 3)),
        ("target_val", LAST, Selection("last", 6)),
        ("source_val", BEST | {"source_dice/mean": 0.0}, Selection("source_val", 3)),
    ],
)
def test_an_adapted_segmenter_says_what_chose_it(
    tmp_path: Path,
    domains: tuple[Domain, Domain],
    select_on: str,
    summary: Mapping[str, float],
    selected: Selection,
) -> None:
    config = SMOKE.changed({"adaptation": {"select_on": select_on}})
    kept, segmenter = keeper(tmp_path, config, adapt=summary), UNet(2, config.segmenter)
    kept.keep_adapted(segmenter, *domains)
    assert kept.selected["adapt"] == selected
    (model,) = kept.outcome.models
    assert (model.kind, model.fingerprint, model.of_target) == ("stylefilter", "of adapt", False)
    assert load_metrics(model.folder) == model.metrics == {**summary, "selected": selected.by}
    loaded, meta = load_segmenter(model.folder, resolve("cpu"))
    assert equal_weights(loaded, segmenter)
    assert (meta.source.name, meta.target and meta.target.name) == ("source", "target")
    assert meta.view == RAW
    (note,) = kept.outcome.result.notes
    assert f"({selected.by})" in note


@pytest.mark.parametrize("of_target", [False, True])
def test_a_segmenter_of_one_domain_says_of_which(
    tmp_path: Path, domains: tuple[Domain, Domain], *, of_target: bool
) -> None:
    kept = keeper(tmp_path, pretrain=BEST)
    kept.keep_pretrained(UNet(2, SMOKE.segmenter), domains[int(of_target)], of_target=of_target)
    name = "target" if of_target else "source"
    assert kept.selected["pretrain"] == Selection(f"{name}_val", 3)
    (model,) = kept.outcome.models
    assert (model.kind, model.of_target) == ("segmenter", of_target)
    meta = load_segmenter(model.folder, resolve("cpu"))[1]
    assert (meta.source.name, meta.target) == (name, None)


def test_what_was_taken_over_is_not_kept_again(
    tmp_path: Path, domains: tuple[Domain, Domain]
) -> None:
    first = keeper(tmp_path / "first", pretrain=BEST)
    first.keep_pretrained(UNet(2, SMOKE.segmenter), domains[0])
    folder = first.outcome.models[0].folder
    model = ReusedModel(kind=ModelKind.SEGMENTER, model=uuid4(), job=uuid4())
    again = keeper(tmp_path / "again", found=(model, folder), pretrain={})
    again.keep_pretrained(UNet(2, SMOKE.segmenter), domains[0])
    assert (again.outcome.models, again.outcome.result.notes) == ([], [])
    assert again.outcome.reused == {"segmenter": model.model}
    assert again.outcome.result.reused == [model]
    assert again.selected["pretrain"] == Selection("source_val", 3)
