"""The bounds of requests on the OpenAPI page: no client may send as much as it likes."""

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.main import create_app
from app.settings import Settings

Schema = dict[str, Any]


@pytest.fixture(scope="module")
def page() -> Schema:
    return create_app(Settings()).openapi()


@pytest.fixture(scope="module")
def operations(page: Schema) -> dict[str, Schema]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in page["paths"].items()
        for method, operation in methods.items()
    }


class Search:
    """Finds the unbounded texts, whole numbers, lists and objects in a schema."""

    def __init__(self, definitions: dict[str, Schema]) -> None:
        self.definitions = definitions

    def unbounded(self, schema: Schema | bool, path: str) -> Iterator[str]:
        if isinstance(schema, bool):
            yield from [path] if schema else []
            return
        if "$ref" in schema:
            schema = self.definitions[schema["$ref"].rpartition("/")[2]]
        choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
        for choice in choices:
            yield from self.unbounded(choice, path)
        kind = schema.get("type")
        if choices or {"enum", "const"} & schema.keys() or kind in ("boolean", "number", "null"):
            return
        yield from getattr(self, f"_{kind or 'anything'}")(schema, path)

    def _anything(self, _schema: Schema, path: str) -> Iterator[str]:
        yield path

    def _string(self, schema: Schema, path: str) -> Iterator[str]:
        # The body of an upload has a limit of its own.
        of_known_size = "contentMediaType" in schema or schema.get("format") in ("uuid", "binary")
        if "maxLength" not in schema and not of_known_size:
            yield path

    def _integer(self, schema: Schema, path: str) -> Iterator[str]:
        ends = (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))
        if not all(schema.keys() & end for end in ends):
            yield path

    def _array(self, schema: Schema, path: str) -> Iterator[str]:
        if "maxItems" not in schema:
            yield path
        items = schema.get("prefixItems") or [schema.get("items", True)]
        for item in items:
            yield from self.unbounded(item, f"{path}[]")

    def _object(self, schema: Schema, path: str) -> Iterator[str]:
        for name, inner in schema.get("properties", {}).items():
            yield from self.unbounded(inner, f"{path}.{name}")
        others = schema.get("additionalProperties", True)
        if others is not False:
            if "maxProperties" not in schema:
                yield path
            names = {"type": "string"} | schema.get("propertyNames", {})
            yield from self.unbounded(names, f"{path}.*")
            yield from self.unbounded(others, f"{path}.*")


def test_every_part_of_a_request_is_bounded(page: Schema, operations: dict[str, Schema]) -> None:
    search = Search(page["components"]["schemas"])
    found: list[str] = []
    for name, operation in operations.items():
        for parameter in operation.get("parameters", []):
            where = f"{name} {parameter['in']}.{parameter['name']}"
            found += search.unbounded(parameter["schema"], where)
        for body in operation.get("requestBody", {}).get("content", {}).values():
            found += search.unbounded(body["schema"], f"{name} body")
    routes = ("POST /datasets", "POST /datasets/{dataset_id}/versions")
    # Their names are numbers of 32 bits.
    assert found == [f"{route} body.mask_values.*" for route in routes]


def test_the_search_finds_what_is_unbounded() -> None:
    class Inner(BaseModel):
        names: list[str]
        number: int = Field(ge=0)

    class Sent(BaseModel):
        model_config = ConfigDict(extra="forbid")

        text: str | None
        several: dict[str, Annotated[list[Inner], Field(max_length=3)]]
        pair: tuple[int, Annotated[int, Field(ge=0, le=1)]]
        anything: JsonValue

    schema = Sent.model_json_schema()
    assert sorted(Search(schema.pop("$defs")).unbounded(schema, "body")) == [
        "body.anything",
        "body.pair[]",
        "body.several",
        "body.several.*",
        "body.several.*[]",
        "body.several.*[].*",
        "body.several.*[].*",
        "body.several.*[].names",
        "body.several.*[].names[]",
        "body.several.*[].number",
        "body.text",
    ]


def test_bodies_have_the_types_that_are_accepted(operations: dict[str, Schema]) -> None:
    json, form = {"application/json"}, {"multipart/form-data"}
    types = {
        name: set(operation["requestBody"]["content"])
        for name, operation in operations.items()
        if "requestBody" in operation
    }
    assert types.pop("POST /datasets") == json | form
    assert types.pop("POST /datasets/{dataset_id}/versions") == json | form
    assert types.pop("POST /predict") == form
    assert types.pop("PUT /datasets/{dataset_id}/labels") == json | {"text/csv"}
    assert types.pop("PATCH /uploads/{upload_id}") == {"application/offset+octet-stream"}
    assert all(given == json for given in types.values()), types
