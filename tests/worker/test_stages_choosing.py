"""Adaptations by the method ``chosen``: what they train, hand out, take over, and say."""

import json
from dataclasses import replace
from typing import Any

import pytest

from app.cli.synthetic.domain import CLASSES, write_domain
from app.datasets.registrar import Registrar
from app.datasets.registration import folder_files
from app.datasets.schemas import DatasetCreate
from app.jobs import verdicts
from app.jobs.schemas import JobRead
from app.labels import service as labels
from app.labels.changes import AskedChange
from app.labels.schemas import DeriveRequest
from app.tables import TrainedModel
from tests.processes import join, wait_for
from tests.worker.conftest import Service
from tests.worker.runs import (
    background,
    model_files,
    result_of,
    run,
    run_here,
    sqlite_only,
    weights,
)

pytestmark = [pytest.mark.training, sqlite_only]

CHOICE: dict[str, Any] = {"max_trained": 2, "target_statistics": False, "views": ["stretched"]}


@pytest.fixture
def fine(service: Service) -> Service:
    """The service with a target of tiles so small that labels can judge classes."""
    root = service.settings.data_folder.parent / "roots"
    settings = service.settings.model_copy(update={"data_roots": (root,)})
    write_domain(root / "fine", "target", num_sections=6, size_px=128, seed=1)
    request = DatasetCreate(name="fine", class_names=list(CLASSES), pixel_size_nm=5.0, tile_px=24)
    registrar = Registrar(service.database, service.storage, settings)
    target = registrar.register(request, folder_files(settings, "fine")).dataset_id
    labels.derive(service.database, target, DeriveRequest(split="train"), AskedChange())
    return replace(service, target=target)


def choosing(service: Service, **changes: Any) -> JobRead:
    return run_here(service, service.adapt(method="chosen", choice=CHOICE, **changes))


def made_by(service: Service, job: JobRead) -> dict[str, TrainedModel]:
    return {model.kind: model for model in service.models() if model.id in job.models}


def relabel(service: Service, *, words: dict[int, str]) -> None:
    """Give each image one word for all classes; images that are not named are unknown."""
    given = [
        {"image": n, "classes": dict.fromkeys(CLASSES, words.get(n, "unknown"))} for n in range(24)
    ]
    body = json.dumps({"labels": given}).encode()
    labels.put_json(service.database, service.target, body, AskedChange())


def test_a_job_hands_out_what_the_labels_choose(fine: Service) -> None:
    service, job = fine, choosing(fine)
    assert (job.state, job.error) == ("succeeded", None)
    assert [stage.stage for stage in job.stages] == [
        "pretrain", "stylise", "adapt", "evaluate", "verdict",
    ]  # fmt: skip
    made = made_by(service, job)
    assert list(made) == ["segmenter", "chosen"]
    assert (made["chosen"].style_model_id, made["chosen"].segmenter_model_id) == (
        None,
        made["segmenter"].id,
    )
    kept = {f"1/chosen/{name}" for name in ("verdict.json",)}
    assert service.files(job.id) == {"logs/1.log"} | kept | model_files(1, "segmenter", "chosen")

    result = result_of(job)
    assert result.verdict is not None
    first = result.verdict.candidates[0]
    assert sum("rounds" in each.name for each in result.verdict.candidates) == 2
    dice = {each.method: each.mean_dice for each in result.evaluations}
    assert list(dice) == ["Source-only", "Histogram matching", "Chosen by labels"]
    assert first.mean_dice == dice["Source-only"]
    assert result.verdict.used.mean_dice == dice["Chosen by labels"]
    (told,) = [note for note in result.notes if note.startswith("Handed out")]
    assert ("source-only" in told) == (result.verdict.use == first.name)
    with service.database.reading() as session:
        use = verdicts.read(session, service.row(job.id)).use
    assert use is not None
    assert use.model_dump() == {
        "model": made["chosen"].id, "stylise": False, "style_model": None,
    }  # fmt: skip


def test_what_was_chosen_before_is_taken_over_with_its_verdict(service: Service) -> None:
    first = choosing(service)
    again = choosing(service)
    assert again.models == first.models
    assert [stage.stage for stage in again.stages] == ["evaluate"]
    assert result_of(again).verdict == result_of(first).verdict
    assert result_of(again).notes[1:] == result_of(first).notes[2:]  # none of the source's weights
    with service.database.reading() as session:
        uses = [verdicts.read(session, service.row(job.id)).use for job in (first, again)]
    assert uses[0] == uses[1] is not None
    # A verdict that this version cannot read takes nothing from the weights.
    (folder,) = [service.storage.model(m.path) for m in service.models() if m.kind == "chosen"]
    (folder / "verdict.json").write_text("{}")
    third = choosing(service)
    assert (third.state, third.models) == ("succeeded", first.models)
    assert result_of(third).verdict is None
    assert any("verdict" in note for note in result_of(third).notes)


@pytest.mark.parametrize(
    "words",
    [
        {},
        dict.fromkeys(range(24), "absent"),
        dict.fromkeys(range(24), "present"),
        {0: "present", 1: "present", 2: "absent", 4: "absent", 5: "present"},
    ],
)
def test_labels_that_can_judge_nothing_hand_out_source_only(
    service: Service, words: dict[int, str]
) -> None:
    relabel(service, words=words)
    job = choosing(service)
    assert (job.state, job.error) == ("succeeded", None)
    found = result_of(job).verdict
    assert found is not None
    assert (found.outcome, found.use) == ("not_judged", "source-only")
    assert any("source-only" in note for note in result_of(job).notes if "Handed out" in note)
    same = weights(service, job)
    assert same["chosen"] == same["segmenter"]


@pytest.mark.processes
def test_a_stopped_choice_goes_on_and_ends_as_if_undisturbed(fine: Service) -> None:
    """Stopped in the second of two trainings, which goes on; the first is not trained again."""
    service = fine
    config: dict[str, Any] = {"method": "chosen", "choice": CHOICE, "adaptation": {"steps": 60}}
    job_id = service.adapt(**config)
    with background(service, job_id) as (runner, thread):
        wait_for(lambda: (row := service.row(job_id)).stage == "adapt" and row.step > 61, "a step")
        runner.stop()
        join(thread)
    stopped = service.row(job_id)
    assert (stopped.state, stopped.stage, stopped.total) == ("queued", "adapt", 120)
    assert 61 < stopped.step < 120
    resumed = run(service, job_id)
    assert (resumed.state, resumed.error) == ("succeeded", None)
    log = service.storage.log(job_id, 2).read_text()
    assert "resumed stage=adapt step=60" in log
    assert f"resumed stage=adapt step={stopped.step - 60}" in log
    undisturbed = run_here(service, service.adapt(**config, reuse=False))
    assert weights(service, resumed) == weights(service, undisturbed)
    assert result_of(resumed).verdict == result_of(undisturbed).verdict
