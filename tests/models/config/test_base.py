"""A part of a config, put into a whole one: merged first, validated once."""

from typing import Any

import pytest
from pydantic import ValidationError

from models.config.augmentation import AugmentationConfig
from models.config.base import Replaces
from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig

QUICK = preset("quick")


def wrong(fields: dict[str, Any], config: StyleFilterConfig = QUICK) -> list[str]:
    """Paths that are refused."""
    with pytest.raises(ValidationError) as refused:
        config.changed(fields)
    return [".".join(str(part) for part in error["loc"]) for error in refused.value.errors()]


@pytest.mark.parametrize("name", ["smoke", "quick", "best", "paper"])
def test_no_field_and_empty_parts_change_nothing(name: Any) -> None:
    config = preset(name)
    assert config.changed({}) == config
    assert config.changed({"style": {}, "adaptation": {"augmentation": {}}}) == config
    assert config.changed(config.model_dump()) == config


def test_fields_that_are_left_out_stay_at_every_depth() -> None:
    changed = QUICK.changed(
        {"adaptation": {"augmentation": {"noise_sigma": 0}}, "segmenter": {"depth": 3}, "seed": 7}
    )
    expected = QUICK.model_dump()
    expected["adaptation"]["augmentation"]["noise_sigma"] = 0.0
    expected["segmenter"]["depth"] = 3
    expected["seed"] = 7
    assert changed.model_dump() == expected
    assert preset("quick") == QUICK


@pytest.mark.parametrize(
    ("stage", "parts", "batch_size"), [("pretrain", 4, 4), ("adaptation", 2, 4)]
)
def test_parts_of_a_batch_divide_the_presets_batch(stage: str, parts: int, batch_size: int) -> None:
    changed = getattr(QUICK.changed({stage: {"accumulate": parts}}), stage)
    assert (changed.accumulate, changed.batch_size) == (parts, batch_size)
    assert wrong({stage: {"accumulate": 3}}) == [stage]
    assert wrong({stage: {"accumulate": 2}}, preset("smoke").changed({stage: {"batch_size": 3}}))


def test_a_batch_alone_must_suit_the_parts_that_stay() -> None:
    in_parts = QUICK.changed({"style": {"batch_size": 4, "accumulate": 4}})
    assert in_parts.changed({"style": {"batch_size": 8}}).style.accumulate == 4
    assert wrong({"style": {"batch_size": 6}}, in_parts) == ["style"]


@pytest.mark.parametrize(
    ("stage", "epochs", "steps"),
    [
        ("style", "epochs_constant", "steps"),
        ("style", "epochs_decay", "steps"),
        ("pretrain", "epochs", "steps"),
        ("pretrain", "validate_every_epochs", "validate_every_steps"),
        ("adaptation", "epochs", "steps"),
        ("adaptation", "validate_every_epochs", "validate_every_steps"),
    ],
)
def test_epochs_take_away_the_steps_unless_these_are_given(
    stage: str, epochs: str, steps: str
) -> None:
    ours = QUICK.model_dump()[stage]
    assert ours[steps] is not None
    changed = QUICK.changed({stage: {epochs: 3}}).model_dump()[stage]
    assert changed == ours | {epochs: 3, steps: None}
    both = QUICK.changed({stage: {epochs: 3, steps: 7}}).model_dump()[stage]
    assert both == ours | {epochs: 3, steps: 7}


def test_each_length_in_steps_names_fields_of_its_config() -> None:
    marked = {
        (name, steps)
        for name in ("style", "pretrain", "adaptation")
        for steps, field in type(getattr(QUICK, name)).model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Replaces)
        and mark.epochs <= type(getattr(QUICK, name)).model_fields.keys()
    }
    assert marked == {
        ("style", "steps"),
        ("pretrain", "steps"),
        ("pretrain", "validate_every_steps"),
        ("adaptation", "steps"),
        ("adaptation", "validate_every_steps"),
    }


def test_null_is_a_value_as_any_other() -> None:
    assert QUICK.changed({"pretrain": {"steps": None}}).pretrain.steps is None
    assert wrong({"pretrain": {"epochs": None}}) == ["pretrain.epochs"]
    assert wrong({"style": None}) == ["style"]
    assert wrong({"adaptation": {"augmentation": None}}) == ["adaptation.augmentation"]
    none = {"steps": None, "epochs_constant": 0, "epochs_decay": 0}
    assert wrong({"style": none}) == ["style"]


def test_what_is_no_field_is_named_by_its_path() -> None:
    assert wrong({"adaptation": {"augmentation": {"hue": 1}}}) == ["adaptation.augmentation.hue"]
    assert wrong({"epochs": 5}) == ["epochs"]
    assert wrong({"model_dump": {}, "style": {"changed": 1}}) == ["style.changed", "model_dump"]
    assert wrong({"segmenter": {"min_px": 8}}) == ["segmenter.min_px"]
    assert wrong({"style": [1], "seed": {"value": 1}}) == ["style", "seed"]


def test_a_part_that_only_the_whole_makes_impossible() -> None:
    assert wrong({"segmenter": {"depth": 5}}, preset("smoke")) == [""]
    larger = {"pretrain": {"crop_px": 64}, "adaptation": {"crop_px": 64}}
    assert preset("smoke").changed({"segmenter": {"depth": 5}, **larger}).segmenter.min_px == 64


def test_an_option_decides_nothing_while_it_has_its_default() -> None:
    plain = AugmentationConfig()
    assert plain.deciding() == {
        "rotate": True,
        "brightness": 0.2,
        "contrast": 0.2,
        "noise_sigma": 0.05,
    }
    strong = plain.changed({"strong": {"probability": 0.5}})
    assert strong.deciding() == plain.deciding() | {"strong": strong.strong.model_dump()}
    whole = QUICK.changed({"pretrain": {"augmentation": {"zoom": 0.25}}}).deciding()
    assert whole["pretrain"] == QUICK.pretrain.deciding() | {
        "augmentation": plain.deciding() | {"zoom": 0.25}
    }
