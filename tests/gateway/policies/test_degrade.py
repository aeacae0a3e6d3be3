"""A feature that is off is answered by its fallback; in an emergency only what matters passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Fallback
from gateway.errors import FeatureOff, Overloaded
from gateway.exchange import Exchange, Reply, compose
from gateway.policies.degrade import MAX_FILE, Degrade, build_fallback
from tests.gateway.cache.bench import Bench, request

Make = Callable[..., Exchange]
ITEMS = build_fallback(Fallback.model_validate({"json": {"items": []}}))


class Board:
    """Switches as plain values."""

    def __init__(self, *off: str, emergency: bool = False) -> None:
        self.off = off
        self.emergency = emergency

    def is_on(self, feature: str) -> bool:
        return feature not in self.off

    def only_critical(self) -> bool:
        return self.emergency


async def _ok(_: Exchange) -> Reply:
    return Reply(200, [], b"real")


async def test_on_passes(exchange: Make) -> None:
    """Nothing is added to the answer of a feature that is on."""
    asked = exchange()
    reply = await compose(Degrade("recs", "optional", Board(), ITEMS), then=_ok)(asked)
    assert (reply.body, asked.outcome, asked.reply_headers) == (b"real", "proxied", [])


@pytest.mark.parametrize(("method", "body"), [("GET", b'{"items":[]}'), ("HEAD", b"")])
async def test_off_is_answered_by_the_fallback(exchange: Make, method: str, body: bytes) -> None:
    """200, the feature named, never cached, a body of the announced length (none for HEAD)."""
    asked = exchange(method)
    reply = await compose(Degrade("recs", "optional", Board("recs"), ITEMS), then=_ok)(asked)
    assert (reply.status, reply.body, asked.outcome) == (200, body, "degraded")
    assert asked.reply_headers == [(b"tidegate-degraded", b"recs")]
    assert dict(reply.headers) == {
        b"content-type": b"application/json",
        b"content-length": b"12",
        b"cache-control": b"no-store",
    }


async def test_off_without_a_fallback_is_503(exchange: Make) -> None:
    """With the feature's name and a time to come back."""
    asked = exchange()
    with pytest.raises(FeatureOff, match="recs") as refused:
        await compose(Degrade("recs", "critical", Board("recs")), then=_ok)(asked)
    assert refused.value.status == 503
    assert refused.value.retry_after is not None
    assert refused.value.outcome == "degraded"


@pytest.mark.parametrize("priority", ["optional", "normal"])
async def test_in_an_emergency_the_rest_is_shed(exchange: Make, priority: Any) -> None:
    """503 for what is not critical, or its fallback where there is one."""
    board = Board(emergency=True)
    with pytest.raises(Overloaded) as refused:
        await compose(Degrade(None, priority, board), then=_ok)(exchange())
    assert refused.value.retry_after is not None
    assert refused.value.outcome == "shed"
    asked = exchange()
    reply = await compose(Degrade("recs", priority, board, ITEMS), then=_ok)(asked)
    assert (reply.body, asked.outcome) == (b'{"items":[]}', "degraded")


@pytest.mark.parametrize("feature", [None, "orders"])
async def test_in_an_emergency_the_critical_passes(exchange: Make, feature: str | None) -> None:
    """Buying goes on."""
    reply = await compose(Degrade(feature, "critical", Board(emergency=True)), then=_ok)(exchange())
    assert reply.body == b"real"


@pytest.mark.parametrize(
    ("given", "status", "content_type", "body"),
    [
        ({"json": None}, 200, b"application/json", b"null"),
        ({"json": {"é": 1}, "status": 203}, 203, b"application/json", '{"é":1}'.encode()),
        ({"text": "spät"}, 200, b"text/plain; charset=utf-8", "spät".encode()),
        ({"text": "<p>", "content_type": "text/html"}, 200, b"text/html", b"<p>"),
        ({"empty": True}, 200, None, b""),
        ({"empty": True, "status": 204}, 204, None, b""),
        ({"text": "lost", "status": 304}, 304, None, b""),
    ],
)
def test_fallbacks_as_configured(
    exchange: Make, given: dict[str, Any], status: int, content_type: bytes | None, body: bytes
) -> None:
    """Status, type and bytes; 204 and 304 announce no body at all."""
    reply = build_fallback(Fallback.model_validate(given))(exchange())
    assert reply is not None
    headers = dict(reply.headers)
    assert (reply.status, reply.body, headers.get(b"content-type")) == (status, body, content_type)
    assert headers.get(b"content-length") == (None if status in {204, 304} else b"%d" % len(body))


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.html", b"text/html; charset=utf-8"),
        ("a.svg", b"image/svg+xml"),
        ("a", b"application/octet-stream"),
    ],
)
def test_a_file_is_read_once(exchange: Make, tmp_path: Path, name: str, content_type: bytes) -> None:
    """Its bytes as they were when the config was read; the type by its name."""
    file = tmp_path / name
    file.write_bytes(b"as it was")
    fallback = build_fallback(Fallback(file=file))
    file.unlink()
    reply = fallback(exchange())
    assert reply is not None
    assert reply.body == b"as it was"
    assert (b"content-type", content_type) in reply.headers


def test_a_file_that_cannot_be_held_is_refused(tmp_path: Path) -> None:
    """Missing or huge: the config is at fault, and says so."""
    with pytest.raises(FileNotFoundError):
        build_fallback(Fallback.model_construct({"file"}, file=tmp_path / "none", status=200))
    huge = tmp_path / "huge"
    huge.write_bytes(b"x" * (MAX_FILE + 1))
    with pytest.raises(ValueError, match="larger than"):
        build_fallback(Fallback(file=huge))


def test_replies_do_not_share_their_headers(exchange: Make) -> None:
    """What is added to one answer must not show up in the next."""
    first, second = ITEMS(exchange()), ITEMS(exchange())
    assert first is not None
    assert second is not None
    first.headers.append((b"x", b"y"))
    assert (b"x", b"y") not in second.headers


# ---- what was kept ---------------------------------------------------------------------------


async def kept_for(seconds: float) -> Bench:
    """A cache whose one answer stopped being fresh that long ago; it may stand in for 60 s more."""
    bench = Bench(stale_if_error="60s")
    bench.answer = bench.says("cache-control: public, max-age=10", body=b"kept")
    await bench.get()
    bench.clock.advance(10 + seconds)
    return bench


@pytest.mark.parametrize(("old", "body"), [(-10, b"kept"), (599, b"kept"), (600, b"[]")])
async def test_off_is_answered_by_what_was_kept(old: float, body: bytes) -> None:
    """As long as the operator allows; then by the configured answer, the feature named either way."""
    cache = (await kept_for(old)).cache
    fallback = build_fallback(Fallback.model_validate({"stale": "10m", "json": []}), cache.last)
    asked = request()
    reply = await compose(Degrade("recs", "optional", Board("recs"), fallback), then=_ok)(asked)
    assert (reply.body, asked.outcome) == (body, "degraded")
    assert asked.reply_headers == [(b"tidegate-degraded", b"recs")]


async def test_nothing_kept_and_nothing_else_is_503() -> None:
    """Kept answers may be all that stands in."""
    cache = (await kept_for(600)).cache
    fallback = build_fallback(Fallback.model_validate({"stale": "10m"}), cache.last)
    with pytest.raises(FeatureOff, match="recs"):
        await compose(Degrade("recs", "optional", Board("recs"), fallback), then=_ok)(request())


@pytest.mark.parametrize(("old", "body"), [(-10, b"kept"), (59, b"kept"), (60, b'{"items":[]}')])
async def test_in_an_emergency_what_is_kept_is_still_given(old: float, body: bytes) -> None:
    """It costs the upstream nothing; the fallback is for when there is none."""
    cache = (await kept_for(old)).cache
    asked = request()
    gate = Degrade("recs", "normal", Board(emergency=True), ITEMS, cache.last)
    assert (await compose(gate, then=_ok)(asked)).body == body
    assert bool(asked.reply_headers) is (body != b"kept")
