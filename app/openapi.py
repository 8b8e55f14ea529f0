"""Completes the OpenAPI page: schemas that no route's signature mentions, titles, and answers."""

import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from app.datasets.schemas import DatasetCreate, OpenOrganelleCreate
from app.errors import Problem
from app.labels.schemas import LabelsUpdate
from app.registrations.changes import DatasetChanges

_UNDESCRIBED = "Successful Response"
"""The words of FastAPI for an answer that its route does not describe."""
_FILES = {"image/png": "A picture.", "text/html": "A page.", "text/plain": "Text."}


class DocumentedAPI(FastAPI):
    """Adds the schema of refusals, and those of requests whose bodies their routes read.

    The title of an operation is the beginning of its description, and the description of an answer
    is that of its schema.
    """

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            _, extra = models_json_schema(
                [
                    (Problem, "serialization"),
                    (DatasetCreate, "validation"),
                    (OpenOrganelleCreate, "validation"),
                    (DatasetChanges, "validation"),
                    (LabelsUpdate, "validation"),
                ],
                ref_template="#/components/schemas/{model}",
            )
            page = super().openapi()
            schemas = page["components"]["schemas"]
            schemas |= extra["$defs"]
            for operation in _operations(page):
                operation["summary"] = _title(operation["description"])
                for response in operation["responses"].values():
                    if response["description"] == _UNDESCRIBED:
                        response["description"] = _answer(response, schemas)
        return super().openapi()


def _operations(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in page["paths"].values():
        yield from methods.values()


def _title(description: str) -> str:
    """Return the first sentence of a description, up to its first colon and without its stop."""
    return re.split(r"[.:](?:\s|$)", " ".join(description.split()), maxsplit=1)[0]


def _answer(response: dict[str, Any], schemas: dict[str, Any]) -> str:
    """Return the words for an answer: those of its schema, of its kind of file, or that it is none.

    Raises:
        KeyError: nothing describes the answer, so its route has to.
    """
    content = response.get("content")
    if content is None:
        return "It is done; the answer is empty."
    (media_type, body), *_ = content.items()
    if media_type in _FILES:
        return _FILES[media_type]
    name: str = body["schema"]["$ref"].rpartition("/")[2]
    words: str = schemas[name]["description"]
    return words.partition("\n\n")[0]
