"""AdaBN: weights stay, batch norm's statistics become the target's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.baselines.adabn import adapt_statistics
from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain
from models.inference import Styliser, stylise_domain
from models.networks.unet import UNet
from models.segmentation import pretrain
from models.training.loop import Run
from tests.models.domains import QUIET, ignore, square_domain

SMOKE = preset("smoke")


@pytest.fixture
def domains(tmp_path: Path) -> tuple[Domain, Domain]:
    source = square_domain(tmp_path / "source.zarr")
    return source, square_domain(tmp_path / "target.zarr", bright=False)


def adapted(
    domains: tuple[Domain, Domain], folder: Path, config: StyleFilterConfig = SMOKE
) -> tuple[UNet, UNet, str]:
    """Return the segmenter before and after, and the fingerprint of what is after."""
    asked: list[str] = []
    run = Run(ignore, None, lambda _, fingerprint: asked.append(fingerprint))
    source, target = domains
    unchanged = Styliser(lambda image: image, "nothing")
    stylised = stylise_domain(unchanged, target, folder / "stylised.zarr", ignore)
    before = pretrain(source, config, QUIET)
    return before, adapt_statistics(before, source, stylised, config, run), asked[0]


def test_nothing_is_learned_and_the_statistics_are_the_targets(
    domains: tuple[Domain, Domain], tmp_path: Path
) -> None:
    segmenter, made, _ = adapted(domains, tmp_path)
    before, after = segmenter.state_dict(), made.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in after if "running_" in name or "num_batches" in name}
    # The first convolution is linear: its mean output is that of the mean image, here of crops.
    side = SMOKE.adaptation.crop_px
    rng = np.random.default_rng(0)
    outputs = []
    for section in domains[1].training_sections() * 20:
        image = domains[1].image(section)
        top, left = (int(rng.integers(0, size - side + 1)) for size in image.shape)
        crop = image[top : top + side, left : left + side]
        with torch.no_grad():
            outputs.append(made.stem[0](torch.tensor(crop)[None, None] * 2 - 1))
    mean, deviation = torch.cat(outputs).mean((0, 2, 3)), torch.cat(outputs).std((0, 2, 3))
    stored = after["stem.1.running_mean"]
    assert ((stored - mean).abs() < 0.25 * deviation).all()
    assert ((before["stem.1.running_mean"] - mean).abs() > 0.5 * deviation).any()


def test_only_what_decides_the_statistics_decides_the_fingerprint(
    domains: tuple[Domain, Domain], tmp_path: Path
) -> None:
    fingerprints = [
        adapted(domains, tmp_path, SMOKE.changed({"adaptation": fields}))[2]
        for fields in ({}, {"learning_rate": 0.05, "steps": 3}, {"crop_px": 48})
    ]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_a_segmenter_without_batch_norm_is_refused(
    domains: tuple[Domain, Domain], tmp_path: Path
) -> None:
    config = SMOKE.changed({"segmenter": {"norm": "group"}})
    with pytest.raises(ValueError, match="batch norm"):
        adapted(domains, tmp_path, config)
