"""Holds the fields of a configuration that a request changes, and documents them."""

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field, GetJsonSchemaHandler, JsonValue, RootModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from app.http.pagination import LARGEST_NUMBER
from models.config.base import FrozenConfig
from models.config.stylefilter import StyleFilterConfig

_DEFINITIONS = "#/$defs/"


class _Partial(GenerateJsonSchema):
    """Generates the schema of a part of a configuration, in which no field has a default."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return {"maximum": LARGEST_NUMBER} | super().int_schema(schema)


class ConfigChanges(RootModel[Annotated[dict[str, JsonValue], Field(max_length=100)]]):
    """Holds fields of a configuration as they came; they are checked together with the preset.

    The range of a field may depend on another field, so a part of a configuration alone is neither
    right nor wrong.
    """

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        whole = StyleFilterConfig.model_json_schema(schema_generator=_Partial)
        inlined = _inlined(whole, whole.pop("$defs"))
        assert isinstance(inlined, dict)
        return inlined | {
            "title": "ConfigChanges",
            "description": "The fields of the preset to change. Every other field stays as the "
            "preset has it.",
            "examples": [{"style": {"steps": 300}, "adaptation": {"accumulate": 2}, "seed": 1}],
        }


def too_large(config: FrozenConfig) -> Iterator[str]:
    """Yield the path of each whole number that is larger than any count can become."""
    for name, value in config:
        if isinstance(value, FrozenConfig):
            yield from (f"{name}.{inner}" for inner in too_large(value))
        elif isinstance(value, int) and value > LARGEST_NUMBER:
            yield name


def _inlined(schema: JsonValue, definitions: Mapping[str, JsonValue]) -> JsonValue:
    """Return a schema in which each reference is replaced by the definition that it names."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        definition = definitions[reference.removeprefix(_DEFINITIONS)]
        assert isinstance(definition, dict)
        schema = definition | {name: value for name, value in schema.items() if name != "$ref"}
    return {name: _inlined(value, definitions) for name, value in schema.items()}
