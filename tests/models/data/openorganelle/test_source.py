"""The fields of a source, as requests and notebooks give them."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from models.data.openorganelle.classes import load_classes
from models.data.openorganelle.source import OpenOrganelleSource

MINE = """
version: 1
name: mine
classes: [{name: a, ids: {x: 1}}, {name: b, ids: {y: 2}}]
"""


def test_crops_may_be_named_or_numbered() -> None:
    source = OpenOrganelleSource.model_validate({"cell": "jrc_hela-2", "crops": [1, "crop113"]})
    assert source.crops == ("crop1", "crop113")
    assert OpenOrganelleSource.model_validate_json(source.model_dump_json()) == source


def test_classes_are_the_papers_a_file_or_a_table(tmp_path: Path) -> None:
    assert OpenOrganelleSource(cell="c").table == load_classes("paper")
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    source = OpenOrganelleSource.model_validate({"cell": "c", "classes": path})
    assert source.table.class_names == ("a", "b")
    assert OpenOrganelleSource.model_validate_json(source.model_dump_json()) == source


def test_no_request_opens_a_file_of_the_service(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    with pytest.raises(ValidationError):
        OpenOrganelleSource.model_validate({"cell": "c", "classes": str(path)})


@pytest.mark.parametrize(
    "fields",
    [
        {"cell": "../x"},
        {"cell": "a/b"},
        {"cell": ""},
        {"cell": "c", "crops": []},
        {"cell": "c", "crops": ["crop1/../2"]},
        {"cell": "c", "crops": [True]},
        {"cell": "c", "crops": [-1]},
        {"cell": "c", "labels": "finest"},
        {"cell": "c", "level": "s0"},
        {"cell": "c", "recon": ".."},
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        OpenOrganelleSource.model_validate(fields)
