"""Which generator is kept: by what the segmenter makes of its images, not by CUT's losses."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.choice.label_scores import COVERED, gather
from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain, Tile
from models.inference import Predictor, segment, stylise
from models.networks.generator import Generator
from models.networks.unet import UNet
from models.scores import Evaluation, confusion_matrix
from models.segmentation import pretrain
from models.style_selection import Judge
from models.style_transfer import train_style
from models.training.loop import Run, seeded_weights
from models.training.progress import Progress
from tests.models.domains import QUIET, equal_weights, square_domain

SIDE = 48


def config(**style: Any) -> StyleFilterConfig:
    smoke = preset("smoke")
    changed = {"steps": 6, "validate_every_steps": 2, "learning_rate": 2e-2} | style
    return smoke.model_copy(update={"style": smoke.style.model_copy(update=changed)})


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Domain, Domain]:
    folder = tmp_path_factory.mktemp("pair")
    tiles = [
        Tile(section, y0, 0, SIDE // 2, SIDE, labels)
        for section, y0, labels in (
            (0, 0, (1, 0)),
            (0, SIDE // 2, (0, 1)),
            (1, 0, (1, -1)),
            (3, 0, (0, 0)),  # of a validation section: no part of it
        )
    ]
    source = square_domain(folder / "source.zarr", side=SIDE)
    return source, square_domain(folder / "target.zarr", side=SIDE, bright=False, tiles=tiles)


@pytest.fixture(scope="module")
def segmenter(pair: tuple[Domain, Domain]) -> UNet:
    """It has learnt enough to tell images apart."""
    smoke = config()
    longer = {"steps": 60, "learning_rate": 1e-2, "validate_every_steps": 30}
    stage = smoke.pretrain.model_copy(update=longer)
    return pretrain(pair[0], smoke.model_copy(update={"pretrain": stage}), QUIET)


def generator(seed: int = 0) -> Generator:
    with seeded_weights(seed):
        return Generator(4, 5)


def test_a_generator_is_scored_by_masks_and_by_labels(
    pair: tuple[Domain, Domain], segmenter: UNet
) -> None:
    target, network = pair[1], generator()
    scores = Judge(segmenter, target, config().pretrain).scores(network)
    found = [
        segment(segmenter, stylise(network, target.image(section)), 32)
        for section in target.sections
    ]
    predicted = [probabilities.argmax(axis=0).astype(np.uint8) for probabilities in found]
    truth = target.mask(target.sections[3])
    by_hand = Evaluation.of(
        target.info.class_names, confusion_matrix(truth, predicted[3], 2)
    ).values()
    assert {name: value for name, value in scores.items() if "dice/" in name} == by_hand
    half = SIDE // 2
    upper, lower, other = predicted[0][:half], predicted[0][half:], predicted[1][:half]

    def has(part: NDArray[np.uint8], number: int) -> bool:
        return bool((part == number).mean() >= COVERED)

    met = [
        has(upper, 0), not has(upper, 1), not has(lower, 0), has(lower, 1), has(other, 0),
    ]  # fmt: skip
    assert scores["label_agreement"] == pytest.approx(sum(met) / 5)
    predict = Predictor(segmenter, target.working_nm, 32, partial(stylise, network)).probabilities
    loss = gather(predict, target, target.sections[:2], steadiness=True).loss()
    assert loss is not None
    assert scores["label_probability"] == pytest.approx(np.exp(-loss))
    assert scores.keys() - by_hand.keys() == {"label_agreement", "label_probability"}
    assert network.training


def test_without_labels_or_masks_nothing_is_made_up(tmp_path: Path, segmenter: UNet) -> None:
    target = square_domain(tmp_path / "t.zarr", side=SIDE)
    assert set(Judge(segmenter, target, config().pretrain).scores(generator())) == {
        "dice/background", "dice/square", "dice/mean",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("select_on", "by"), [("target_val", "dice/mean"), ("labels", "label_probability")]
)
def test_the_best_generator_is_kept(
    pair: tuple[Domain, Domain], segmenter: UNet, select_on: str, by: str
) -> None:
    before, reports = copy.deepcopy(segmenter), list[Progress]()
    kept = train_style(*pair, config(select_on=select_on), Run(reports.append), segmenter)
    scored = {report.step: report.values[by] for report in reports if by in report.values}
    assert list(scored) == [2, 4, 6]
    assert len(set(scored.values())) == 3
    best = reports[-1].best
    assert best is not None
    assert best["selected_step"] == max(scored, key=lambda step: scored[step])
    assert Judge(segmenter, pair[1], config().pretrain).scores(kept)[by] == max(scored.values())
    assert equal_weights(segmenter, before)


def test_to_choose_changes_no_step(pair: tuple[Domain, Domain], segmenter: UNet) -> None:
    losses = []
    for select_on in ("last", "labels"):
        reports: list[Progress] = []
        train_style(*pair, config(select_on=select_on), Run(reports.append), segmenter)
        losses.append([report.values["loss_d"] for report in reports])
    assert losses[0] == losses[1]


def test_a_choice_needs_the_segmenter(pair: tuple[Domain, Domain]) -> None:
    with pytest.raises(ValueError, match="target_val .*segmenter"):
        train_style(*pair, config(select_on="target_val"), QUIET)
