"""The admin API describes itself, and keeps to what it says (`GatewayProcess.admin` checks every answer)."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

CONTRACT = {
    *(("get", "/api/status"), ("get", "/api/config"), ("post", "/api/config/reload"), ("get", "/api/audit")),
    *((method, path) for method in ("get", "put") for path in ("/api/features/{name}", "/api/step")),
    *((method, path) for method in ("get", "put") for path in ("/api/breakers/{name}", "/api/limits/{name}")),
    *(("get", "/metrics"), ("get", "/livez"), ("get", "/readyz")),
}


@pytest.fixture
async def described(one_gateway: Any) -> Any:
    return (await one_gateway.admin("GET", "/api/openapi.json", token=None)).json()


async def test_the_document_is_valid_and_whole(described: Any) -> None:
    """OpenAPI 3.1 by its own schema; every operation of the contract is in it, each named once."""
    validate(described)

    there = {(method, path) for path, methods in described["paths"].items() for method in methods}
    assert there >= CONTRACT
    ids = [one["operationId"] for methods in described["paths"].values() for one in methods.values()]
    assert len(ids) == len(set(ids))


async def test_every_look_answers_as_described(one_gateway: Any, described: Any) -> None:
    """Each GET, with what it names there and not there; the fixture compares answers with the document."""
    names = {
        "/api/features/{name}": "recommendations",
        "/api/breakers/{name}": "shop",
        "/api/limits/{name}": "all",
    }
    for path, methods in described["paths"].items():
        if "get" in methods and path != "/api/events":
            answer = await one_gateway.admin("GET", path.replace("{name}", names.get(path, "")))
            assert answer.status_code == 200, path
            if path in names:
                assert (await one_gateway.admin("GET", path.replace("{name}", "nothing"))).status_code == 404


async def test_what_needs_a_token_says_so(one_gateway: Any, described: Any) -> None:
    """Each operation that the document guards answers 401 without a token, and no other does."""
    async with httpx.AsyncClient(base_url=one_gateway.admin_url) as client:
        for path, methods in described["paths"].items():
            for method, operation in methods.items():
                answer = await client.request(method, re.sub(r"\{\w+\}", "x", path))
                guarded = bool(operation["security"])
                assert (answer.status_code == 401) is guarded, (method, path, answer.status_code)
