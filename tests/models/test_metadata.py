"""What stands beside weights, as this and earlier versions wrote it."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.config.stylefilter import StyleFilterConfig
from models.config.versions import CONFIG_VERSION, ConfigUnusable, upgraded
from models.metadata import RAW, DomainMeta, ModelMeta
from tests.old_state import FOLDER, old_configs

META = ModelMeta(
    kind="segmenter",
    config=StyleFilterConfig(),
    class_names=("a", "b"),
    working_nm=4.0,
    source=DomainMeta(name="s", pixel_size_nm=2.0, intensity_window=(0.0, 255.0)),
    target=None,
)


def changed(**fields: Any) -> str:
    return json.dumps(json.loads(META.model_dump_json()) | fields)


def test_what_is_written_is_read() -> None:
    assert json.loads(META.model_dump_json())["config_version"] == CONFIG_VERSION
    assert ModelMeta.read(META.model_dump_json()) == META


@pytest.mark.parametrize("path", sorted(FOLDER.glob("data/jobs/*/*/*/config.json")), ids=str)
def test_what_stands_beside_old_weights_is_read(path: Path) -> None:
    stored = json.loads(path.read_text())
    assert "config_version" not in stored
    meta = ModelMeta.read(path.read_text())
    config = upgraded(stored["config"], None).model_dump(mode="json")
    added = {
        "config": config,
        "config_version": CONFIG_VERSION,
        "view": RAW.model_dump(mode="json"),
    }
    assert json.loads(meta.model_dump_json()) == stored | added


def test_a_config_of_the_first_version_is_upgraded() -> None:
    stored = json.loads(changed(config=old_configs()["0001_4f2c61d/quick"]))
    del stored["config_version"]
    assert ModelMeta.read(json.dumps(stored)).config.adaptation.norm_statistics == "both"


def test_fields_of_other_versions_beside_the_config_are_passed_over() -> None:
    assert ModelMeta.read(changed(made_by="a later version")) == META


@pytest.mark.parametrize(
    "fields", [{"config": None}, {"config_version": CONFIG_VERSION + 1}, {"config": {"a": 1}}]
)
def test_a_config_that_cannot_be_used_is_told(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigUnusable):
        ModelMeta.read(changed(**fields))


@pytest.mark.parametrize("text", ["", "[]", "{", changed(working_nm="large")])
def test_what_is_damaged_is_told(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of the parser, or of pydantic
        ModelMeta.read(text)
