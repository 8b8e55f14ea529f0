"""Pictures of a training: what they show, and that looking changes nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.config.stages import SegmenterConfig
from models.inference import stylise
from models.networks.generator import Generator
from models.networks.unet import UNet
from models.training import preview
from models.training.progress import Picture
from tests.models.domains import ignore, square_domain
from tests.models.stage_process import STAGES, Case, TrainedStage, train_case

pytestmark = pytest.mark.training


@pytest.mark.parametrize("stage", STAGES)
def test_pictures_change_no_weight(
    stage: TrainedStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Picture] = []

    def look(progress: object) -> None:
        picture = getattr(progress, "picture", None)
        if picture is not None:
            seen.append(picture)

    case = Case(stage, stage, {}, {"norm": "batch"})
    shown = train_case(case, tmp_path / "shown", look).state_dict()
    assert seen
    assert all(picture.image.shape == (48, 48) for picture in seen)
    blank = Picture(np.zeros((1, 1), np.float32))
    for name in ("translation", "segmentation"):
        monkeypatch.setattr(preview, name, lambda *_: blank)
    unseen = train_case(case, tmp_path / "unseen", ignore).state_dict()
    assert shown.keys() == unseen.keys()
    assert all(torch.equal(shown[name], unseen[name]) for name in shown)


def test_a_picture_shows_the_middle_of_the_first_training_section(tmp_path: Path) -> None:
    domain = square_domain(tmp_path / "d.zarr", side=300)
    image = domain.image(domain.training_sections()[0])[22:278, 22:278]
    torch.manual_seed(0)
    generator = Generator(4, 5)
    translated = preview.translation(generator, domain)
    assert np.array_equal(translated.image, image)
    assert translated.stylised is not None
    np.testing.assert_array_equal(translated.stylised, stylise(generator, image))
    segmenter = UNet(2, SegmenterConfig(base_filters=4, depth=1)).train()
    segmented = preview.segmentation(segmenter, domain, 32)
    assert segmented.classes is not None
    assert (segmented.classes.shape, segmented.classes.dtype) == ((256, 256), np.uint8)
    assert segmented.stylised is None
    assert segmenter.training
