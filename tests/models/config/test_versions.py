"""Configurations of every earlier version, in today's fields."""

from typing import Any

import pytest

from models.config.stylefilter import StyleFilterConfig
from models.config.versions import CONFIG_VERSION, ConfigUnusable, upgraded
from tests.old_state import old_configs

OLD = old_configs()


def version_of(name: str) -> int:
    return int(name[:4])


@pytest.mark.parametrize("name", OLD)
def test_a_config_of_every_version_keeps_its_values(name: str) -> None:
    config = upgraded(OLD[name], None)
    assert upgraded(OLD[name], version_of(name)) == config
    assert config.changed(OLD[name]) == config


@pytest.mark.parametrize("name", OLD)
def test_what_a_version_lacked_means_what_it_did_then(name: str) -> None:
    """Nothing else differs from today's defaults than the statistics of batch norm."""
    config = upgraded(OLD[name], None)
    statistics = "both" if version_of(name) == 1 else "target"
    assert config.adaptation.norm_statistics == statistics
    assert config == StyleFilterConfig().changed(
        OLD[name] | {"adaptation": OLD[name]["adaptation"] | {"norm_statistics": statistics}}
    )


def test_the_newest_config_kept_for_tests_is_todays() -> None:
    """Where this fails, a field or default changed: raise CONFIG_VERSION, and keep a config."""
    newest = max(OLD)
    assert version_of(newest) == CONFIG_VERSION
    assert OLD[newest.split("/")[0] + "/paper"] == StyleFilterConfig().model_dump(mode="json")


@pytest.mark.parametrize(
    ("change", "version", "words"),
    [
        ({"style": {"steps": 10**9}}, None, "style.steps"),
        ({"style": {"steps": 10**9}}, CONFIG_VERSION, "style.steps"),
        ({"weak_labels": {"smoothness": 0.001}}, None, "weak_labels.smoothness"),
        ({"unheard_of": 1}, None, "unheard_of"),
        ({"adaptation": "none"}, 1, "adaptation"),
        ({}, 0, "version 0"),
        ({}, CONFIG_VERSION + 1, f"version {CONFIG_VERSION + 1}"),
    ],
)
def test_what_cannot_be_run_today_is_refused(
    change: dict[str, Any], version: int | None, words: str
) -> None:
    config = dict(OLD["0005_85ab8fe/smoke"])
    for name, value in change.items():
        both = isinstance(value, dict) and isinstance(config.get(name), dict)
        config[name] = config[name] | value if both else value
    with pytest.raises(ConfigUnusable, match=words):
        upgraded(config, version)


@pytest.mark.parametrize("damaged", [None, [], "config", 5, True])
def test_what_is_no_object_is_refused(damaged: Any) -> None:
    with pytest.raises(ConfigUnusable):
        upgraded(damaged, None)
