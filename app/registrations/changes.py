"""Holds the fields that a new version of a dataset changes, and documents them."""

from typing import Annotated

from pydantic import Field, GetJsonSchemaHandler, JsonValue, RootModel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from app.datasets.schemas import DatasetCreate

_EXAMPLE: dict[str, JsonValue] = {"tile_px": 256, "splits": {"train": ["a", "b"], "test": ["c"]}}


class DatasetChanges(RootModel[Annotated[dict[str, JsonValue], Field(max_length=100)]]):
    """Holds fields of a dataset as they came; they are checked together with the version before."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        whole = handler.resolve_ref_schema(handler(DatasetCreate.__pydantic_core_schema__))
        fields = {name: each for name, each in whole["properties"].items() if name != "name"}
        return {
            "type": "object",
            "title": "DatasetChanges",
            "description": "The fields to change. Every other field stays as the version before "
            "has it. `null` takes a field away.",
            "additionalProperties": False,
            "properties": fields,
            "examples": [_EXAMPLE],
        }
