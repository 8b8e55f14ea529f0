"""The OpenAPI page: whole, described, and true."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.datasets.schemas import DatasetCreate, OpenOrganelleCreate
from app.errors import Problem
from app.jobs.request_schemas import (
    AdaptRequest,
    EvaluateRequest,
    PretrainRequest,
    StyleFilterRequest,
    TrainStyleRequest,
)
from app.labels.schemas import LabelsUpdate
from app.main import create_app
from app.settings import Settings
from models.config.base import FrozenConfig
from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig

OPERATIONS = {
    "POST /datasets",
    "POST /datasets/{dataset_id}/versions",
    "GET /datasets",
    "GET /datasets/{dataset_id}",
    "GET /datasets/{dataset_id}/contact-sheet.png",
    "GET /datasets/{dataset_id}/report",
    "GET /datasets/{dataset_id}/report.html",
    "GET /datasets/{source_id}/compatibility/{target_id}",
    "DELETE /datasets/{dataset_id}",
    "GET /datasets/{dataset_id}/images",
    "GET /datasets/{dataset_id}/images/{n}",
    "PUT /datasets/{dataset_id}/labels",
    "GET /datasets/{dataset_id}/labels",
    "GET /datasets/{dataset_id}/labels/points",
    "POST /datasets/{dataset_id}/labels/derive",
    "GET /datasets/{dataset_id}/labels/history",
    "GET /datasets/{dataset_id}/tile-sizes",
    "GET /datasets/{dataset_id}/next-tiles",
    "GET /datasets/{dataset_id}/suggested-sources",
    "OPTIONS /uploads",
    "POST /uploads",
    "GET /uploads/{upload_id}",
    "PATCH /uploads/{upload_id}",
    "DELETE /uploads/{upload_id}",
    "POST /jobs/adapt",
    "POST /jobs/train-style",
    "POST /jobs/pretrain",
    "POST /jobs/stylefilter",
    "POST /jobs/evaluate",
    "POST /jobs/probe",
    "POST /jobs/benchmark",
    "GET /jobs/{job_id}/report",
    "GET /jobs/{job_id}/report/{name}",
    "GET /jobs",
    "GET /jobs/{job_id}",
    "GET /jobs/{job_id}/metrics",
    "GET /jobs/{job_id}/cell",
    "GET /jobs/{job_id}/verdict",
    "GET /jobs/{job_id}/events",
    "GET /jobs/{job_id}/log",
    "POST /jobs/{job_id}/cancel",
    "GET /jobs/{job_id}/pictures/{name}",
    "POST /jobs/{job_id}/pause",
    "POST /jobs/{job_id}/resume",
    "POST /jobs/{job_id}/retry",
    "PATCH /jobs/{job_id}",
    "GET /models",
    "GET /models/{model_id}",
    "POST /predict",
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
}

CHANGES = {"POST", "PUT", "PATCH", "DELETE"}


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    return create_app(Settings()).openapi()


@pytest.fixture(scope="module")
def operations(page: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in page["paths"].items()
        for method, operation in methods.items()
    }


def inside(node: Any) -> Iterator[dict[str, Any]]:
    """All objects in a JSON tree."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        yield from inside(child)


def test_every_operation_is_there_and_described(operations: dict[str, Any]) -> None:
    assert set(operations) == OPERATIONS
    assert [name for name, operation in operations.items() if not operation["description"]] == []


def test_titles_and_answers_are_words_of_the_project(operations: dict[str, Any]) -> None:
    answers = {
        response["description"]
        for operation in operations.values()
        for response in operation["responses"].values()
    }
    assert "Successful Response" not in answers  # what FastAPI says where nothing is said
    for name, operation in operations.items():
        beginning = " ".join(operation["description"].split())[: len(operation["summary"])]
        assert operation["summary"] == beginning, name
        assert not operation["summary"].endswith((".", ":")), name


def test_every_field_and_every_parameter_is_described(
    page: dict[str, Any], operations: dict[str, Any]
) -> None:
    silent = [
        f"{name}.{field}"
        for name, schema in page["components"]["schemas"].items()
        for field, described in schema.get("properties", {}).items()
        if not described.get("description")
    ]
    silent += [
        f"{name} {parameter['name']}"
        for name, operation in operations.items()
        for parameter in operation.get("parameters", [])
        if not (parameter.get("description") or parameter["schema"].get("description"))
    ]
    assert silent == []


def test_every_refusal_and_failure_is_a_problem(operations: dict[str, Any]) -> None:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    own = {("GET /readyz", "503")}  # it says what is not ready
    for name, operation in operations.items():
        bad = {
            status: response["content"]
            for status, response in operation["responses"].items()
            if status >= "4" and (name, status) not in own
        }
        assert {"4XX", "500"} <= bad.keys()
        assert all(content == problem for content in bad.values()), name


def test_failures_are_documented_where_they_can_come(operations: dict[str, Any]) -> None:
    def giving(status: str) -> set[str]:
        return {name for name, one in operations.items() if status in one["responses"]}

    files_alone = {name for name in OPERATIONS if " /uploads" in name}
    assert OPERATIONS - giving("503") == {"GET /livez"} | files_alone
    written = {
        "POST /datasets",
        "POST /datasets/{dataset_id}/versions",
        "POST /predict",
        "GET /datasets/{dataset_id}/labels",
    }
    assert giving("507") == written | {"POST /uploads", "PATCH /uploads/{upload_id}"}
    assert giving("403") == {name for name in OPERATIONS if name.split()[0] in CHANGES}
    with_body = {name for name, one in operations.items() if "requestBody" in one}
    assert giving("413") == giving("415") == with_body
    for name in giving("503") - {"GET /readyz"}:  # which may be asked at any time
        assert "Retry-After" in operations[name]["responses"]["503"]["headers"], name


def test_every_reference_leads_to_a_schema(page: dict[str, Any]) -> None:
    references = {node["$ref"] for node in inside(page) if isinstance(node.get("$ref"), str)}
    assert "#/components/schemas/DatasetCreate" in references
    assert "#/components/schemas/OpenOrganelleCreate" in references
    known = {f"#/components/schemas/{name}" for name in page["components"]["schemas"]}
    assert references <= known


def test_the_page_is_built_once(page: dict[str, Any]) -> None:
    app = create_app(Settings())
    assert app.openapi() is app.openapi()
    assert app.openapi() == page


@pytest.mark.parametrize(
    "model",
    [
        DatasetCreate,
        OpenOrganelleCreate,
        AdaptRequest,
        TrainStyleRequest,
        PretrainRequest,
        StyleFilterRequest,
        EvaluateRequest,
        LabelsUpdate,
    ],
)
def test_examples_of_requests_are_accepted(page: dict[str, Any], model: type) -> None:
    examples = page["components"]["schemas"][model.__name__]["examples"]
    assert examples
    for example in examples:
        parsed = TypeAdapter(model).validate_python(example)
        assert parsed.model_dump(mode="json", exclude_unset=True, by_alias=True) == example


def test_a_part_of_a_config_has_every_field_and_no_default(page: dict[str, Any]) -> None:
    part = page["components"]["schemas"]["ConfigChanges"]
    assert not [node for node in inside(part) if {"default", "required", "$ref"} & node.keys()]

    def fields(config: FrozenConfig, schema: dict[str, Any]) -> None:
        assert schema["properties"].keys() == dict(config).keys()
        assert schema["additionalProperties"] is False
        for name, value in config:
            described = schema["properties"][name]
            assert described["description"]
            if isinstance(value, FrozenConfig):
                fields(value, described)

    fields(StyleFilterConfig(), part)
    assert part["properties"]["style"]["properties"]["batch_size"]["maximum"] == 16
    (example,) = part["examples"]
    assert preset("quick").changed(example) != preset("quick")
    for name in ("Adapt", "TrainStyle", "Pretrain", "StyleFilter", "Benchmark"):
        config = page["components"]["schemas"][f"{name}Request"]["properties"]["config"]
        assert {"$ref": "#/components/schemas/ConfigChanges"} in config["anyOf"]


def test_the_example_of_an_upload_and_of_a_problem(operations: dict[str, Any]) -> None:
    content = operations["POST /datasets"]["requestBody"]["content"]
    (example,) = content["multipart/form-data"]["schema"]["properties"]["metadata"]["examples"]
    assert DatasetCreate.model_validate_json(example).folder is None
    fields = Problem.model_fields.items()
    values = {name: field.examples[0] for name, field in fields if field.examples}
    assert Problem(**values).status == 422


def test_files_are_described_as_such(page: dict[str, Any], operations: dict[str, Any]) -> None:
    (form,) = operations["POST /predict"]["requestBody"]["content"]
    assert form == "multipart/form-data"
    assert page["components"]["schemas"]["PredictForm"]["properties"]["image"]["type"] == "string"
    predicted = operations["POST /predict"]["responses"]["200"]["content"]
    assert set(predicted) == {"image/png", "image/tiff", "application/x-npz"}
    preview = operations["GET /datasets/{dataset_id}/images/{n}"]["responses"]["200"]["content"]
    assert set(preview) == {"image/png"}
