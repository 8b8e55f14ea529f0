"""The OpenAPI page: schemas that no route's signature mentions, and their names."""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from app.datasets.schemas import DatasetCreate
from app.errors import Problem


class DocumentedAPI(FastAPI):
    """Adds the bodies of refusals, and of the one request that is read by hand."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            _, extra = models_json_schema(
                [(Problem, "serialization"), (DatasetCreate, "validation")],
                ref_template="#/components/schemas/{model}",
            )
            super().openapi()["components"]["schemas"] |= extra["$defs"]
        return super().openapi()
