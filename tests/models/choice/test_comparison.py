"""The last comparison: when a student learns from a teacher, and when it may stand for it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.choice.candidates import Plain, Workshop
from models.choice.comparison import Comparison, Entry
from models.choice.judging import Facts, judge
from models.choice.teachers import Teacher
from models.choice.tiles import training_jury
from models.config.presets import preset
from models.data.tiles import relabelled
from models.networks.unet import UNet
from models.stylefilter import StyleFilter
from models.training.loop import Run, seeded_weights
from models.training.progress import Progress
from tests.models.domains import square_domain

pytestmark = pytest.mark.training

FACTS = Facts(("background", "square"))


def comparison(folder: Path, reports: list[Progress], student_steps: int) -> Comparison:
    """An untrained segmenter is the only candidate."""
    still = {"rotate": False, "brightness": 0.0, "contrast": 0.0, "noise_sigma": 0.0}
    stage = {"learning_rate": 1e-2, "batch_size": 3, "crop_px": 48, "augmentation": still}
    config = preset("smoke").changed(
        {
            "adaptation": {**stage, "select_on": "last"},
            "choice": {"student_steps": student_steps},
        }
    )
    target = relabelled(square_domain(folder / "t.zarr"), 16, splits=("train",))
    with seeded_weights(0):
        segmenter = UNet(2, config.segmenter).eval()
    source = square_domain(folder / "s.zarr")
    steps = StyleFilter(source, target, config, Run(reports.append), folder / "work")
    made = Comparison(Workshop(steps, segmenter), training_jury(target))
    made.add(Entry("Source-only", Plain(), segmenter))
    return made


def teacher(confidence: float) -> Teacher:
    """It finds bright squares with this probability."""

    def predict(image: NDArray[np.float32]) -> NDArray[np.float32]:
        square = np.where(image > 0.65, confidence, 1 - confidence).astype(np.float32)
        return np.stack([1 - square, square])

    return Teacher(
        f"bright {confidence}", "bright pixels", ("one", "other"), str(confidence), predict
    )


def losses(made: Comparison) -> Mapping[str, float | None]:
    return {each.name: each.evidence.loss() for each in made.candidates}


def test_a_student_stands_for_a_teacher_that_is_better(tmp_path: Path) -> None:
    reports: list[Progress] = []
    made = comparison(tmp_path, reports, 150)
    made.teach([teacher(0.6), teacher(0.95)])
    student = "raw, source, area 0, student"
    assert list(losses(made)) == ["source-only", student, "bright 0.6", "bright 0.95"]
    verdict = judge(made.candidates, FACTS)
    assert (verdict.outcome, verdict.use) == ("better", student)
    assert made.named(student).trained == "student"
    found = [each.mean_dice for each in verdict.candidates]
    assert found[1] is not None
    assert found[1] > 0.9
    assert [r.step for r in reports if r.stage == "adapt"] == list(range(1, 151))
    # Labels cannot tell it from the same network of another name, and can from the untrained one.
    made.add(Entry("The same", Plain(area_power=1.0), made.named(student).segmenter))
    assert [entry.title for entry in made.equals()] == [made.named(student).title, "The same"]


def test_a_student_far_behind_its_teacher_is_left_out(tmp_path: Path) -> None:
    made = comparison(tmp_path, [], 1)
    made.teach([teacher(0.95)])
    assert list(losses(made)) == ["source-only", "bright 0.95"]
    assert any("left out" in remark for remark in made.remarks)
    verdict = judge(made.candidates, FACTS)
    # What cannot be handed out is shown, and never used.
    assert verdict.use == "source-only"
    bright, base = verdict.candidates[1].loss, verdict.candidates[0].loss
    assert bright is not None
    assert base is not None
    assert bright < base - 0.1


def test_no_student_learns_from_a_teacher_that_is_not_better(tmp_path: Path) -> None:
    reports: list[Progress] = []
    made = comparison(tmp_path, reports, 150)
    made.teach([teacher(0.02)])
    assert list(losses(made)) == ["source-only", "bright 0.02"]
    assert not [r for r in reports if r.stage == "adapt"]
