"""Adds schemas to the OpenAPI page that no route's signature mentions."""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from app.datasets.schemas import DatasetCreate
from app.errors import Problem
from app.labels.schemas import LabelsUpdate


class DocumentedAPI(FastAPI):
    """Adds the schema of refusals, and those of requests whose bodies their routes read."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            _, extra = models_json_schema(
                [
                    (Problem, "serialization"),
                    (DatasetCreate, "validation"),
                    (LabelsUpdate, "validation"),
                ],
                ref_template="#/components/schemas/{model}",
            )
            super().openapi()["components"]["schemas"] |= extra["$defs"]
        return super().openapi()
