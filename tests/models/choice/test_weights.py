"""Weights of a step are scored by labels, beside the training and without a trace in it."""

from pathlib import Path

import pytest
import torch

from models.choice.label_scores import gather
from models.choice.weights import by_labels
from models.data.tiles import labels_of_some, relabelled
from models.inference import Predictor
from models.pseudo_labels import adapt_segmenter
from models.training.loop import OtherRules, Run
from tests.models.domains import equal_weights, ignore, square_domain
from tests.models.stage_process import inverted, pair
from tests.models.test_adaptation import untrained, whole_sections


def test_the_score_is_the_loss_of_the_labels(tmp_path: Path) -> None:
    target = relabelled(square_domain(tmp_path / "d.zarr"), 16, splits=("train",))
    segmenter = untrained(whole_sections())
    segmenter.train()
    predictor = Predictor(segmenter.eval(), target.working_nm, 48)
    loss = gather(predictor.probabilities, target, target.split("train")).loss()
    segmenter.train()
    assert loss is not None
    assert by_labels(48)(segmenter, target) == pytest.approx(-loss)
    assert segmenter.training
    assert by_labels(48)(segmenter, labels_of_some(target, 0, 0)) is None


@pytest.mark.training
def test_other_rules_change_nothing_and_keep_what_they_choose(tmp_path: Path) -> None:
    source, target = pair(tmp_path)
    target = relabelled(target, 16, splits=("train",))
    seen = inverted(target, tmp_path)
    config = whole_sections(steps=4, validate_every_steps=2, select_on="last")
    others = OtherRules(by_labels(48))
    plain, beside = (
        adapt_segmenter(untrained(config), source, seen, config, Run(ignore, others=rules))
        for rules in (None, others)
    )
    assert equal_weights(plain, beside)
    assert set(others.kept) == {"last", "labels", "oracle"}
    last = others.kept["last"]
    assert last.step == 4
    assert all(torch.equal(last.weights[name], w) for name, w in beside.state_dict().items())
    scores = others.kept["labels"].by, by_labels(48)(beside.eval(), seen)
    assert scores[1] is not None
    assert scores[0] >= scores[1]
