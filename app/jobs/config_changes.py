"""The part of a config that a request gives, and the schema that documents it."""

from collections.abc import Mapping

from pydantic import GetJsonSchemaHandler, JsonValue, RootModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from models.config import StyleFilterConfig

_DEFINITIONS = "#/$defs/"


class _Partial(GenerateJsonSchema):
    """Generates the schema of a part: no field has a default."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


class ConfigChanges(RootModel[dict[str, JsonValue]]):
    """Holds raw fields of a configuration, to be checked where they replace those of a preset.

    Their ranges depend on each other, so a part of a configuration is neither right nor wrong.
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
            "description": "Fields of the configuration to change, in their places; every other "
            "field stays as the preset has it.",
            "examples": [{"style": {"steps": 300}, "adaptation": {"accumulate": 2}, "seed": 1}],
        }


def _inlined(schema: JsonValue, definitions: Mapping[str, JsonValue]) -> JsonValue:
    """Return a schema with the definitions that it refers to in their places, nothing required."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        definition = definitions[reference.removeprefix(_DEFINITIONS)]
        assert isinstance(definition, dict)
        schema = definition | {name: value for name, value in schema.items() if name != "$ref"}
    return {name: _inlined(value, definitions) for name, value in schema.items()}
