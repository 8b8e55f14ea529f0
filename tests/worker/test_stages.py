"""Each kind of job as its stages, and stages that are spared because their result is there."""

import json
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from app.jobs.request_schemas import (
    EvaluateRequest,
    PretrainRequest,
    StyleFilterRequest,
    TrainStyleRequest,
)
from app.labels import service as labels
from app.labels.changes import AskedChange
from app.settings import Settings
from tests.processes import join, processes_of, wait_for
from tests.worker.conftest import Service
from tests.worker.runs import (
    SMOKE,
    STAGES,
    background,
    model_files,
    pictures,
    result_of,
    run,
    run_here,
    sqlite_only,
)


@pytest.mark.processes
@pytest.mark.slow
def test_each_kind_of_job_succeeds_and_builds_on_the_others(service: Service) -> None:
    source, target = service.source, service.target
    adapted = run(service, service.adapt())
    assert (adapted.state, adapted.error) == ("succeeded", None)
    assert [stage.stage for stage in adapted.stages] == STAGES
    assert all(stage.finished and stage.seconds > 0 for stage in adapted.stages)
    assert service.files(adapted.id) == {"logs/1.log"} | model_files(
        1, "style", "segmenter", "stylefilter"
    )
    assert "8 of 8" in result_of(adapted).notes[0]
    for note, weights, domain in zip(
        result_of(adapted).notes[1:3], ("Source-only", "Adapted"), ("source", "target"), strict=True
    ):
        assert re.match(rf"{weights} weights: .*step [36] \({domain}_val\)", note)
    assert {name.split("-")[0] for name in pictures(service)} == {"style", "pretrain", "adapt"}
    names = ["Source-only", "Histogram matching", "CUT", "StyleFilter"]
    assert [row.method for row in result_of(adapted).evaluations] == names

    rows = {row.kind: row for row in service.models()}
    final = rows["stylefilter"]
    assert final.style_model_id == rows["style"].id
    assert final.segmenter_model_id == rows["segmenter"].id
    assert {row.source_id for row in rows.values()} == {source}
    assert (rows["style"].target_id, final.target_id) == (target, target)
    assert rows["segmenter"].target_id is None
    folder = service.storage.model(final.path)
    config = json.loads((folder / "config.json").read_text())
    assert config["config"] == final.config == adapted.config
    assert json.loads((folder / "metrics.json").read_text()) == final.metrics
    assert load_file(folder / "weights.safetensors")

    style = run(
        service,
        service.submit(TrainStyleRequest(source=source, target=target, preset=SMOKE, reuse=False)),
    )
    pretrained = run(
        service,
        service.submit(PretrainRequest(source=source, preset=SMOKE, reuse=False)),
    )
    for job, kind in ((style, "style"), (pretrained, "segmenter")):
        assert (job.state, job.error) == ("succeeded", None)
        assert service.files(job.id) == {"logs/1.log"} | model_files(1, kind)
    request = StyleFilterRequest(
        style_model=style.models[0],
        segmenter_model=pretrained.models[0],
        preset=SMOKE,
        reuse=False,
    )
    filtered = run(service, service.submit(request))
    assert (filtered.state, filtered.error) == ("succeeded", None)
    assert service.files(filtered.id) == {"logs/1.log"} | model_files(1, "stylefilter")
    (made,) = [row for row in service.models() if row.job_id == filtered.id]
    assert made.style_model_id == style.models[0]
    assert made.segmenter_model_id == pretrained.models[0]
    # Same seed, same data: the stages one by one give the weights of the whole.
    whole = load_file(service.storage.model(final.path) / "weights.safetensors")
    parts = load_file(service.storage.model(made.path) / "weights.safetensors")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)

    scored = run(
        service,
        service.submit(EvaluateRequest(model=final.id, dataset=target)),
    )
    assert (scored.state, scored.error, scored.models) == ("succeeded", None, [])
    (evaluation,) = result_of(scored).evaluations
    assert evaluation.confusion == result_of(adapted).evaluations[-1].confusion
    assert service.files(scored.id) == {"logs/1.log"}


@pytest.mark.training
@sqlite_only
def test_what_was_trained_alike_is_not_trained_again(service: Service) -> None:
    first = run_here(service, service.adapt())
    assert result_of(first).reused == []
    made = dict(zip(("style", "segmenter", "stylefilter"), first.models, strict=True))

    def reused(**config: object) -> tuple[set[str], list[str]]:
        """Which kinds an adaptation took over, and the stages it went through."""
        job = run_here(service, service.adapt(**config))
        assert (job.state, job.error) == ("succeeded", None)
        assert len(job.models) == 3
        kinds = {model.kind: model for model in result_of(job).reused}
        assert all(m.model == made[kind] and m.job == first.id for kind, m in kinds.items())
        rows = {row.kind: row for row in service.models() if row.job_id == job.id}
        if "stylefilter" in rows:
            assert rows["stylefilter"].style_model_id in job.models
            assert rows["stylefilter"].segmenter_model_id in job.models
        return set(kinds), [stage.stage for stage in job.stages]

    everything = {"style", "segmenter", "stylefilter"}
    assert reused() == (everything, ["stylise", "evaluate", "verdict"])
    kinds, stages = reused(adaptation={"steps": 5})
    assert kinds == {"style", "segmenter"}
    assert stages == ["stylise", "adapt", "evaluate", "verdict"]
    assert reused(style={"steps": 5})[0] == {"segmenter"}
    assert reused(pretrain={"steps": 2})[0] == {"style"}
    assert reused(seed=7)[0] == set()
    changed = {"labels": [{"image": 0, "classes": {"cytosol": "unknown", "vesicle": "unknown"}}]}
    labels.put_json(service.database, service.target, json.dumps(changed).encode(), AskedChange())
    assert reused()[0] == {"style", "segmenter"}
    service.storage.remove(service.storage.job(first.id))  # its files are gone
    assert reused(adaptation={"steps": 7})[0] == set()
    assert reused(reuse=False)[0] == set()


@pytest.mark.processes
@pytest.mark.slow
@sqlite_only
def test_several_processes_train_one_job(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEFILTER_PROCESSES", "2")
    monkeypatch.setenv("STYLEFILTER_THREADS", "1")
    service = replace(service, settings=Settings())
    job = run(service, service.adapt())
    assert (job.state, job.error) == ("succeeded", None)
    assert service.files(job.id) == {"logs/1.log"} | model_files(
        1, "style", "segmenter", "stylefilter"
    )
    assert [stage.stage for stage in job.stages] == STAGES
    again = run(service, service.adapt())
    assert len(result_of(again).reused) == 3
    stopped = service.adapt(style={"steps": 1_000_000}, seed=3)
    with background(service, stopped) as (runner, thread):
        wait_for(lambda: service.row(stopped).step, "the first step")
        runner.stop()
        join(thread)
    assert service.job(stopped).state == "queued"
    wait_for(lambda: processes_of(service.settings.data_folder) == {}, "the end of all processes")
