"""Whatever is sent as a form: an answer that the description allows, and never a failure of ours."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

PATHS = (
    *("/api/features/recommendations", "/api/step", "/api/breakers/shop", "/api/limits/all"),
    *("/api/features/nothing", "/api/session"),
)
text = st.text(max_size=30)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | text
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3)
)
words = st.sampled_from(
    ["on", "off", "auto", "open", "closed", "shadow", "5/second", "0/second", "10m", "-1s", "1e9"]
)
forms = st.dictionaries(
    st.sampled_from(["state", "step", "rate", "for", "reason", "token"]) | text, words | values, max_size=5
)
bodies = (forms | values).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200)


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from(PATHS), body=bodies)
async def test_no_form_breaks_the_api(one_gateway: Any, path: str, body: bytes) -> None:
    """2xx or a 4xx that says why; one_gateway compares each answer with the API's own description."""
    answer = await one_gateway.admin("POST" if path == "/api/session" else "PUT", path, body)

    assert answer.status_code < 500
    if answer.status_code >= 400:
        assert answer.json()["detail"]


@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
async def test_no_file_breaks_the_check(one_gateway: Any, body: bytes) -> None:
    """A configuration that is none is told so, line by line."""
    answer = await one_gateway.admin("POST", "/api/config/check", body or b"x")

    assert answer.status_code == 422
    assert answer.json()["mistakes"]
