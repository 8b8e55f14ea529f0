"""The table of methods: what follows from its entries, and that each can be trained."""

from pkgutil import resolve_name
from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from models.config.presets import preset
from models.table1.methods import (
    METHODS,
    ROWS,
    MethodName,
    RowName,
    StyliserName,
    needs_style,
    rows_by_method,
)

SMOKE = preset("smoke")


def test_methods_follow_from_the_rows_in_their_order() -> None:
    assert list(METHODS) == list(dict.fromkeys(row.method.name for row in ROWS.values()))
    assert all(METHODS[row.method.name] is row.method for row in ROWS.values())
    assert rows_by_method(["filter-at-test", "cut", "stylefilter-no-cut"]) == {
        "source-only": ("cut",),
        "stylefilter": ("stylefilter-no-cut", "filter-at-test"),
    }


def test_the_papers_rows_come_first_and_titles_are_distinct() -> None:
    assert [row.paper for row in ROWS.values()] == [True] * 9 + [False] * (len(ROWS) - 9)
    assert len({row.title for row in ROWS.values()}) == len(ROWS)


def test_rows_that_use_labels_are_those_that_learn_from_them() -> None:
    assert [name for name, row in ROWS.items() if row.method.uses_labels] == [
        "paul", "paul-no-advl", "paul-no-advl-cut", "stylefilter-no-cut", "stylefilter",
        "filter-without-style", "filter-at-test", "stylefilter-histogram", "stylefilter-fourier",
        "rounds", "rounds-target", "rounds-area", "rounds-mask", "chosen",
    ]  # fmt: skip
    filters = {
        name
        for name, method in METHODS.items()
        if method.changes.get("adaptation", {}).get("label_filter")
    }
    classify = {name for name, method in METHODS.items() if method.classifies_tiles}
    assert filters | classify == {name for name, method in METHODS.items() if method.uses_labels}


@pytest.mark.parametrize("name", METHODS)
def test_each_method_names_a_function_and_fields_that_exist(name: MethodName) -> None:
    method = METHODS[name]
    if method.adapt is not None:
        assert callable(resolve_name(method.adapt))
    changed, whole = method.changed(SMOKE).model_dump(), SMOKE.model_dump()
    for section, fields in method.changes.items():
        assert whole[section].keys() >= fields.keys()
        whole[section] |= fields
    assert changed == whole


def test_a_method_is_what_it_is_whatever_the_config_says() -> None:
    off = SMOKE.model_copy(
        update={"adaptation": SMOKE.adaptation.model_copy(update={"label_filter": False})}
    )
    assert METHODS["stylefilter"].changed(off).adaptation.label_filter
    assert METHODS["filter-without-style"].changed(off).adaptation.label_filter
    assert not METHODS["unfiltered"].changed(SMOKE).adaptation.label_filter
    without = METHODS["paul-no-advl"].changed(SMOKE).weak_labels
    assert (without.weight_class_alignment, without.weight_output_alignment) == (0, 0)
    assert without.weight_labels == SMOKE.weak_labels.weight_labels
    assert METHODS["paul"].changed(SMOKE) == SMOKE


def test_a_style_model_is_needed_for_training_or_for_testing() -> None:
    assert needs_style("source-only", ["source-only", "cut"])
    assert not needs_style("source-only", ["source-only", "histogram"])
    assert needs_style("stylefilter", ["stylefilter-no-cut"])
    assert not needs_style("y-net", ["y-net"])


@pytest.mark.parametrize(("kind", "names"), [(RowName, ROWS), (MethodName, METHODS)])
def test_a_schema_lists_the_names_and_refuses_others(
    kind: object, names: dict[str, object]
) -> None:
    adapter = TypeAdapter[str](kind)
    assert adapter.json_schema() == {"type": "string", "enum": list(names)}
    assert [adapter.validate_python(name) for name in names] == list(names)
    with pytest.raises(ValidationError, match="source-only"):
        adapter.validate_python("stylefilter-plus")


def test_rows_are_tested_in_a_way_that_exists() -> None:
    ways = {*get_args(StyliserName), "chosen"}
    assert {row.tested_on for row in ROWS.values()} | {
        method.trained_on for method in METHODS.values()
    } == ways
    chosen = {row.tested_on == "chosen" for row in ROWS.values() if row.method.chooses}
    assert chosen == {True}
