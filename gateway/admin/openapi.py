"""The OpenAPI document, made of the operations that the routes are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel, TypeAdapter

from gateway.admin.auth import COOKIE, CSRF_HEADER
from gateway.admin.operations import Operation

Json = dict[str, Any]
_REF = "#/components/schemas/{model}"
_PROBLEM: Json = {
    "description": "Problem details (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "mistakes": {"type": "array", "items": {"type": "string"}},
    },
}


def document(operations: Iterable[Operation]) -> Json:
    """OpenAPI 3.1."""
    listed = list(operations)
    adapters = [
        (operation.id, "serialization", TypeAdapter(operation.answer))
        for operation in listed
        if operation.answer is not None
    ]
    forms = [
        (operation.id, "validation", TypeAdapter(operation.form))
        for operation in listed
        if isinstance(operation.form, type) and issubclass(operation.form, BaseModel)
    ]
    placed, defined = TypeAdapter.json_schemas([*adapters, *forms], ref_template=_REF)  # type: ignore[list-item]  # modes are literals
    schemas = {name: _closed(schema) for name, schema in defined.get("$defs", {}).items()}
    paths: dict[str, Json] = {}
    for operation in listed:
        answer = placed.get((operation.id, "serialization"))
        form = placed.get((operation.id, "validation"))
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, answer, form)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate's admin API",
            "version": _version(),
            "description": "What ops see and touch. A change is answered once every worker of the host has "
            "confirmed it, or after a second.",
        },
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": COOKIE,
                    "description": f"Of a browser; changes need {CSRF_HEADER} besides.",
                },
            },
        },
    }


def _described(operation: Operation, answer: Json | None, form: Json | None) -> Json:
    content = {operation.media: {"schema": answer} if answer is not None else {}}
    answers: Json = {
        str(status): {"description": operation.says, "content": content}
        for status in (operation.status, *operation.also)
    }
    refused = {400, *operation.refuses}  # whatever breaks HTTP
    if operation.needs != "nobody":
        refused |= {401, 429} | ({403} if operation.needs == "operator" else set())
    if operation.form is not None:
        refused |= {413, 422}
    for status in sorted(refused):
        problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        answers[str(status)] = {"description": HTTPStatus(status).phrase, "content": problem}
    described: Json = {
        "operationId": operation.id,
        "summary": operation.says,
        "description": f"Needs: {operation.needs}.",
        "responses": answers,
        "security": [] if operation.needs == "nobody" else [{"token": []}, {"session": []}],
    }
    if names := re.findall(r"\{(\w+)\}", operation.path):
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if operation.form == "text":
        described["requestBody"] = {"content": {"application/yaml": {"schema": {"type": "string"}}}}
    elif form is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": form}}}
    return described


def _closed(schema: Json) -> Json:
    """With no members but those it names."""
    if schema.get("type") == "object" and "properties" in schema:
        return {"additionalProperties": False, **schema}
    return schema


def _version() -> str:
    try:
        return version("tidegate")
    except PackageNotFoundError:
        return "0"
