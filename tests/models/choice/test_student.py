"""A student: what it learns from its teacher, and that it goes on where it stopped."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.adaptation import Pair
from models.choice.student import Lessons, distil, taught
from models.choice.teachers import Teacher, at_working_size, behind_cut, ensemble, mean_of
from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain
from models.data.samples import Crop
from models.inference import Predictor, Styliser, View, stylise, stylise_domain
from models.networks.generator import Generator
from models.networks.statistics import norms
from models.networks.unet import UNet
from models.training.loop import Run, seeded_weights
from models.training.progress import Progress, Stop
from models.training.resume import Checkpoints
from tests.models.domains import QUIET, equal_weights, ignore, square_domain

pytestmark = pytest.mark.training


def config(steps: int = 4, **adaptation: object) -> StyleFilterConfig:
    still = {"rotate": False, "brightness": 0.0, "contrast": 0.0, "noise_sigma": 0.0}
    stage = {"steps": steps, "select_on": "last", "crop_px": 48, "augmentation": still}
    return preset("smoke").changed({"adaptation": {**stage, **adaptation}})


def bright(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Call class 1 what is brighter than mid grey, the surer the brighter, and less at the top."""
    square = (1 / (1 + np.exp(-20 * (image - 0.6)))).astype(np.float32)
    square[: len(square) // 4] *= np.float32(0.5)
    return np.stack([1 - square, square])


TEACHER = Teacher("bright", "bright pixels", (), "bright", bright)


@dataclass(frozen=True)
class School:
    pair: Pair
    target: Domain
    lessons: Lessons


@pytest.fixture
def school(tmp_path: Path) -> School:
    source, target = square_domain(tmp_path / "s.zarr"), square_domain(tmp_path / "t.zarr")
    same = Styliser(lambda image: image, "same")
    seen = stylise_domain(same, target, tmp_path / "seen.zarr", ignore)
    lessons = taught(TEACHER, target, seen, tmp_path / "lessons.zarr", ignore)
    return School(Pair(source, seen), target, lessons)


def network() -> UNet:
    with seeded_weights(0):
        return UNet(2, preset("smoke").segmenter).eval()


def test_lessons_are_the_mean_over_rotations(school: School) -> None:
    section = school.target.sections[1]
    image = school.target.image(section)
    by_hand = np.mean(
        [np.rot90(bright(np.rot90(image, n)), -n, axes=(1, 2)) for n in range(4)], axis=0
    )
    whole = school.lessons.of_crop(Crop(section, 0, 0, 48))
    assert np.allclose(whole, by_hand, atol=1e-3)
    turned = school.lessons.of_crop(Crop(section, 8, 40, 16, quarter_turns=1))
    assert np.array_equal(turned[:, 8:], np.rot90(whole[:, 8:24, 40:], axes=(1, 2)))
    assert not turned[:, :8].any()


def test_lessons_have_the_size_at_which_the_student_sees(school: School, tmp_path: Path) -> None:
    same = Styliser(lambda image: image, "same")
    larger = stylise_domain(same, school.target.at(2.0), tmp_path / "larger.zarr", ignore)
    lessons = taught(TEACHER, school.target, larger, tmp_path / "2.zarr", ignore)
    section = school.target.sections[0]
    found = lessons.of_crop(Crop(section, 0, 0, 96))
    whole = school.lessons.of_crop(Crop(section, 0, 0, 48))
    assert np.abs(found[:, ::2, ::2] - whole).mean() < 0.05
    assert np.allclose(found.sum(axis=0), 1, atol=2e-3)


def test_the_first_loss_is_that_of_the_equations(school: School) -> None:
    reports: list[Progress] = []
    start = network()
    distil(start, school.pair, school.lessons, config(1, batch_size=3), Run(reports.append))
    # A batch holds each of the three sections once, and a crop is a whole section.
    by_hand = [0.0, 0.0]
    for section in school.target.sections[:3]:
        for place, domain in enumerate((school.pair.source, school.target)):
            image = torch.from_numpy(domain.image(section).copy())[None, None] * 2 - 1
            with torch.no_grad():
                log_p = start(image).log_softmax(1)[0].numpy()
            lesson = school.lessons.of_crop(Crop(section, 0, 0, 48))
            of_mask = np.stack([domain.mask(section) == n for n in range(2)])
            wanted = lesson if place else of_mask
            by_hand[place] -= float((wanted * log_p).sum()) / (3 * 48 * 48)
    values = reports[-1].values
    found = [values["loss_source"], values["loss_target"]]
    assert found == pytest.approx(by_hand, rel=1e-4)


def test_a_student_segments_as_its_teacher(school: School) -> None:
    start = network()
    before = copy.deepcopy(start)
    made = distil(
        start, school.pair, school.lessons, config(120, learning_rate=1e-2, batch_size=3), QUIET
    )
    predictor = Predictor(made, 4.0, 48)
    section = school.target.sections[4]
    image = school.target.image(section)
    agree = predictor.probabilities(image).argmax(axis=0) == bright(image).argmax(axis=0)
    assert agree.mean() > 0.98
    assert equal_weights(start, before)
    for trained, first in zip(norms(made), norms(before), strict=True):
        assert trained.running_mean is not None
        assert first.running_mean is not None
        assert torch.equal(trained.running_mean, first.running_mean)


def test_a_student_that_was_stopped_ends_as_one_that_was_not(
    school: School, tmp_path: Path
) -> None:
    whole = distil(network(), school.pair, school.lessons, config(), QUIET)

    def stop(progress: Progress) -> None:
        if progress.step == 2:
            raise Stop

    states = tmp_path / "states"
    states.mkdir()
    with pytest.raises(Stop):
        distil(network(), school.pair, school.lessons, config(), Run(stop, Checkpoints(states)))
    steps: list[int] = []
    run = Run(lambda progress: steps.append(progress.step), Checkpoints(states))
    again = distil(network(), school.pair, school.lessons, config(), run)
    assert steps == [3, 4]
    assert equal_weights(again, whole)


def test_a_student_of_another_teacher_is_another(school: School, tmp_path: Path) -> None:
    states = tmp_path / "states"
    states.mkdir()
    run = Run(ignore, Checkpoints(states))
    distil(network(), school.pair, school.lessons, config(), run)
    other = Lessons(tmp_path / "lessons.zarr", "another")
    steps: list[int] = []
    run = Run(lambda progress: steps.append(progress.step), Checkpoints(states))
    distil(network(), school.pair, other, config(), run)
    assert steps == [1, 2, 3, 4]


# --- teachers -------------------------------------------------------------------------------------


def test_a_mean_is_of_all_members_at_the_working_size() -> None:
    image = np.random.default_rng(0).random((40, 52), np.float32)
    plain = Predictor(network(), 4.0, 32)
    inverted = Predictor(network(), 4.0, 32, view=View(lambda image: 1 - image, 0.5))
    teacher = ensemble([("one", plain), ("other", inverted)])
    found = teacher.predict(image)
    both = [plain.probabilities(image), at_working_size(inverted, image)]
    assert np.allclose(found, (both[0] + both[1]) / 2, atol=1e-6)
    assert both[1].shape == (2, 40, 52)
    assert not np.allclose(both[1], Predictor(network(), 4.0, 32).probabilities(1 - image))
    assert teacher.made_of == ("one", "other")
    assert ensemble([("one", plain), ("one", inverted)]).identity != teacher.identity
    assert np.array_equal(mean_of(iter(both[:1])), both[0])


def test_cut_stands_before_the_segmenter() -> None:
    with seeded_weights(1):
        generator = Generator(4, 5).eval()
    image = np.random.default_rng(0).random((32, 32), np.float32)
    predictor = Predictor(network(), 4.0, 32)
    teacher = behind_cut(generator, predictor)
    expected = predictor.probabilities(stylise(generator, image))
    assert np.array_equal(teacher.predict(image), expected)
