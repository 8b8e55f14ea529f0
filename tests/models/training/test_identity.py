"""Fingerprints of stages are those of version 0.1, so that what it trained is taken over.

They were made with commit 313dbdf, of a segmenter whose weights are all 0.5; here are their first
16 digits.
"""

from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch

from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig
from models.networks.unet import UNet
from models.table1.methods import METHODS, MethodName
from models.training import identity
from models.training.loop import Run
from tests.models.domains import ignore
from tests.models.stage_process import inverted, pair

SMOKE = preset("smoke")

ADAPTATIONS: dict[MethodName, str] = {
    "y-net": "8b99c1d6adb77413",
    "paul": "d16b11ce982469b9",
    "paul-no-advl": "ee2083de43faf959",
    "paul-no-advl-cut": "ee2083de43faf959",
    "stylefilter": "f09eeb746278b488",
    "filter-without-style": "f09eeb746278b488",
    "unfiltered": "1fbd4732170b0d2e",
    "stylefilter-histogram": "f09eeb746278b488",
    "stylefilter-fourier": "f09eeb746278b488",
    "adabn": "fb9a55450d5ae75c",
    "adabn-cut": "fb9a55450d5ae75c",
}

CHANGED: list[tuple[dict[str, object], MethodName, str]] = [
    ({"adaptation": {"pseudo_labeler": "ema"}}, "stylefilter", "108f56ed38237934"),
    ({"adaptation": {"pseudo_labeler": "ema"}}, "y-net", ADAPTATIONS["y-net"]),
    (
        {"adaptation": {"pseudo_labeler": "frozen"}, "seed": 7},
        "stylefilter",
        "b38af3dab05f6018",
    ),
    (
        {"adaptation": {"pseudo_labeler": "frozen"}, "seed": 7},
        "y-net",
        "6f14940eb238ccb0",
    ),
]


class Asked(Exception):
    """Ends a stage that asks whether it was trained before."""


def half(config: StyleFilterConfig) -> UNet:
    segmenter = UNet(2, config.segmenter)
    with torch.no_grad():
        for value in segmenter.state_dict().values():
            value.fill_(0.5 if value.is_floating_point() else 0)
    return segmenter


def adaptation(name: MethodName, folder: Path, config: StyleFilterConfig = SMOKE) -> str:
    """Return the fingerprint that a method's adaptation asks for."""
    asked: list[str] = []

    def finished(_: str, fingerprint: str) -> None:
        asked.append(fingerprint)
        raise Asked

    source, target = pair(folder)
    method = METHODS[name]
    assert method.adapt is not None
    adapt, run = resolve_name(method.adapt), Run(ignore, None, finished)
    with pytest.raises(Asked):
        adapt(half(config), source, inverted(target, folder), method.changed(config), run)
    return asked[0][:16]


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_a_methods_fingerprint_is_as_it_was(tmp_path: Path, name: MethodName) -> None:
    assert adaptation(name, tmp_path) == ADAPTATIONS[name]


@pytest.mark.parametrize(("fields", "name", "expected"), CHANGED)
def test_a_changed_configs_fingerprint_is_as_it_was(
    tmp_path: Path, fields: dict[str, object], name: MethodName, expected: str
) -> None:
    assert adaptation(name, tmp_path, SMOKE.changed(fields)) == expected


def test_fingerprints_of_the_first_stages_are_as_they_were(tmp_path: Path) -> None:
    source, target = pair(tmp_path)
    by_labels = SMOKE.changed({"style": {"select_on": "labels"}})
    found = [
        identity.of_pretraining(source, SMOKE),
        identity.of_style(source, target, SMOKE, half(SMOKE)),
        identity.of_style(source, target, by_labels, half(SMOKE)),
    ]
    assert [each[:16] for each in found] == [
        "60d97880b961686b",
        "37baf3b54f50cc4e",
        "cca875cf2397eae3",  # no longer 5776110d5f447117: labels choose by another rule
    ]


@pytest.mark.parametrize(
    "option",
    [
        {"augmentation": {"zoom": 0.3}},
        {"augmentation": {"strong": {"probability": 0.5}}},
        {"augmentation": {"noise_sigma": 0.1}},
        {"learning_rate_decay": "linear"},
    ],
)
def test_an_option_that_is_on_is_part_of_the_fingerprint(
    tmp_path: Path, option: dict[str, object]
) -> None:
    source, _ = pair(tmp_path)
    changed = SMOKE.changed({"pretrain": option, "adaptation": option})
    plain = identity.of_pretraining(source, SMOKE)
    assert identity.of_pretraining(source, changed) != plain
    for name in ("stylefilter", "y-net"):
        assert adaptation(name, tmp_path, changed) != ADAPTATIONS[name]


def test_the_loss_of_rare_classes_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    source, _ = pair(tmp_path)
    prints = {
        weight: identity.of_pretraining(
            source, SMOKE.changed({"pretrain": {"dice_weight": weight}})
        )
        for weight in (0, 0.5, 1)
    }
    assert prints[0] == identity.of_pretraining(source, SMOKE)
    assert len(set(prints.values())) == 3
