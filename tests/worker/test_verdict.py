"""The verdict of a job: what the target's labels say of the networks that it has trained."""

import json

import pytest
import torch

from app.cli.synthetic.domain import CLASSES
from app.jobs.schemas import JobRead
from app.labels import service as labels
from app.labels.changes import AskedChange
from app.tables import Job, JobKind
from models.config.presets import preset
from models.data.domain import Domain
from models.data.tiles import relabelled
from models.labels_used.area import area_prior
from models.networks.generator import Generator
from models.networks.unet import UNet
from models.scores import Evaluation
from models.segmentation import pretrain
from models.stylefilter import AdaptedModels
from models.training.loop import seeded_weights
from models.training.progress import Progress
from tests.models.domains import QUIET, square_domain
from tests.worker.conftest import Service
from tests.worker.runs import result_of, run_here, sqlite_only
from worker import tester
from worker.inputs import AdaptInputs
from worker.verdict import verdict_of

CONFIG = preset("smoke").changed(
    {"pretrain": {"steps": 120, "learning_rate": 1e-2, "validate_every_steps": 60}}
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Domain, Domain]:
    """A target like its source, whose tiles of 16 px are labelled by its masks."""
    folder = tmp_path_factory.mktemp("pair")
    source, target = (square_domain(folder / f"{name}.zarr") for name in ("source", "target"))
    return source, relabelled(target, 16, splits=("train",))


@pytest.fixture(scope="module")
def trained(pair: tuple[Domain, Domain]) -> UNet:
    return pretrain(pair[0], CONFIG, QUIET)


@pytest.mark.training
def test_an_adapted_model_that_lost_a_class_is_not_the_one_to_use(
    pair: tuple[Domain, Domain], trained: UNet
) -> None:
    source, target = pair
    with seeded_weights(0):
        style, lost = Generator(4, 5), UNet(2, CONFIG.segmenter)
    with torch.no_grad():  # background everywhere, whatever the image
        lost.head.weight.zero_()
        lost.head.bias.copy_(torch.tensor([4.0, -4.0]))
    rows = tester.Tester(AdaptedModels(style, trained, lost.eval()), source, target, CONFIG)
    inputs = AdaptInputs(Job(kind=JobKind.ADAPT), CONFIG, source, target)
    reports: list[Progress] = []
    by_masks = {"source-only": Evaluation(class_names=("a", "b"), confusion=(), dice=(1.0, 0.5),
                                          mean_dice=0.75)}  # fmt: skip
    found = verdict_of(inputs, rows, by_masks, reports.append)
    assert (found.outcome, found.use) == ("worse", "source-only")
    assert (found.num_tiles, found.num_sections) == (27, 3)
    raw, _, adapted = found.candidates
    present = adapted.classes["square"].misses
    assert present.of > 5
    assert (present.wrong, adapted.classes["square"].claims.wrong) == (present.of, 0)
    assert raw.classes["square"].misses.wrong < present.of / 2
    assert raw.classes["square"].source_area == area_prior(source, 16)[1]
    assert [c.trained_on_labels for c in found.candidates] == [False, False, True]
    assert [c.mean_dice for c in found.candidates] == [0.75, None, None]
    steps = [(report.stage, report.step, report.total) for report in reports]
    assert steps == [("verdict", step, 9) for step in range(1, 10)]


@pytest.mark.training
@sqlite_only
def test_a_job_ends_with_the_verdict_of_its_labels(service: Service) -> None:
    def noted(job: JobRead) -> None:
        assert (job.state, job.error) == ("succeeded", None)
        result = result_of(job)
        assert result.verdict is not None
        told = [f"Verdict: {w}" for w in (*result.verdict.findings, *result.verdict.advice)]
        assert result.notes[-len(told) :] == told

    first = run_here(service, service.adapt())
    found = result_of(first).verdict
    assert found is not None
    assert [candidate.name for candidate in found.candidates] == [
        "source-only", "cut", "stylefilter",
    ]  # fmt: skip
    assert found.num_tiles == 8
    assert first.stages[-1].stage == "verdict"
    dice = {e.method: e.mean_dice for e in result_of(first).evaluations}
    assert [c.mean_dice for c in found.candidates] == [dice[c.title] for c in found.candidates]
    noted(first)

    unknown = dict.fromkeys(CLASSES, "unknown")
    changed = {"labels": [{"image": n, "classes": unknown} for n in range(24)]}
    labels.put_json(service.database, service.target, json.dumps(changed).encode(), AskedChange())
    unlabelled = run_here(service, service.adapt())
    nothing = result_of(unlabelled).verdict
    assert nothing is not None
    assert (nothing.outcome, nothing.use, nothing.num_tiles) == ("not_judged", "source-only", 0)
    assert "verdict" not in [stage.stage for stage in unlabelled.stages]
    noted(unlabelled)
