"""Adds schemas to the OpenAPI page that no route's signature mentions."""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from app.datasets.schemas import DatasetCreate
from app.errors import Problem


class DocumentedAPI(FastAPI):
    """Adds the schema of refusals, and that of the request whose body the route reads itself."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            _, extra = models_json_schema(
                [(Problem, "serialization"), (DatasetCreate, "validation")],
                ref_template="#/components/schemas/{model}",
            )
            super().openapi()["components"]["schemas"] |= extra["$defs"]
        return super().openapi()
