"""The store's bound: bytes, whatever is put, found and forgotten."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.exchange import Exchange, Headers
from gateway.policies.cache_key import Key, primary_key
from gateway.policies.cache_rules import Terms
from gateway.policies.cache_store import MAX_PASSES, OVERHEAD, PASS_FOR, Entry, Store
from tests.clock import Clock

TERMS = Terms(0, 10, 0, 0, public=True)
BOUND = 10 * OVERHEAD


def entry(size: int, vary: str = "") -> Entry:
    headers: Headers = [(b"vary", vary.encode())] if vary else []
    return Entry(200, headers, b"x" * size, TERMS, 0.0)


VARY = "accept-language, tidegate-degraded"


class StoreMachine(RuleBasedStateMachine):
    """Puts, finds and forgets at random; what is found is what was put last, what stands in is its like."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(BOUND, clock=lambda: 0.0)
        self.last: dict[tuple[bytes, str, str], Entry] = {}  # in the order of being put

    def ask(self, target: bytes, language: str, off: str = "") -> Exchange:
        async def nothing() -> dict[str, object]:
            return {}

        headers: Headers = [(b"accept-language", language.encode())] if language else []
        exchange = Exchange(
            method="GET", target=target, path="/", headers=headers, host=b"h", address="192.0.2.1",
            receive=nothing, started=0.0,
        )  # fmt: skip
        exchange.degraded = off
        return exchange

    def key(self, *asked: Any) -> Key:
        exchange = self.ask(*asked)
        return self.store.key(primary_key(exchange), exchange)

    targets = st.sampled_from([b"/%d" % n for n in range(8)])
    languages = st.sampled_from(["", "de"])
    offs = st.sampled_from(["", "a", "a, b"])

    @rule(path=targets, language=languages, off=offs, size=st.integers(0, 3 * OVERHEAD))
    def put(self, path: bytes, language: str, off: str, size: int) -> None:
        exchange, new = self.ask(path, language, off), entry(size, VARY)
        assert self.store.put(primary_key(exchange), exchange, new) or new.size > BOUND
        self.last.pop((path, language, off), None)
        self.last[path, language, off] = new

    @rule(path=targets, language=languages, off=offs)
    def get(self, path: bytes, language: str, off: str) -> None:
        found = self.store.get(self.key(path, language, off))
        assert found is None or found is self.last[path, language, off]

    @rule(path=targets, language=languages, off=offs)
    def stand_in(self, path: bytes, language: str, off: str) -> None:
        mine = self.last.get((path, language, off))
        alike = [e for (*of, _), e in self.last.items() if of == [path, language] and self.kept(e)]
        wanted = dict.fromkeys([*([mine] if mine is not None and self.kept(mine) else []), *alike[-1:]])
        assert self.store.stand_ins(self.key(path, language, off)) == list(wanted)

    def kept(self, entry: Entry) -> bool:
        return entry.key is not None and self.store.get(entry.key) is entry

    @rule(path=targets)
    def forget(self, path: bytes) -> None:
        self.store.forget(primary_key(self.ask(path, "")))
        for language, off in itertools.product(("", "de"), ("", "a", "a, b")):
            assert self.store.stand_ins(self.key(path, language, off)) == []

    @rule(path=targets, language=languages, off=offs)
    def withdraw(self, path: bytes, language: str, off: str) -> None:
        self.store.withdraw(self.key(path, language, off))
        assert self.store.stand_ins(self.key(path, language, off)) == []

    @invariant()
    def is_bounded_and_counts_right(self) -> None:
        kept = [e for e in self.last.values() if self.kept(e)]
        assert self.store.bytes == sum(e.size for e in kept) <= BOUND
        assert len(self.store) == len(kept) == sum(map(len, self.store._kin.values()))
        assert all(self.store._kin.values())


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_least_used_goes_first(request_for: Callable[..., Exchange]) -> None:
    """A hot answer survives a flood of others."""
    store = Store(4 * OVERHEAD, clock=lambda: 0.0)
    hot = request_for(target="/hot")
    store.put(primary_key(hot), hot, entry(10))
    for n in range(100):
        cold = request_for(target=f"/{n}")
        store.put(primary_key(cold), cold, entry(10))
        assert store.get(store.key(primary_key(hot), hot)) is not None
    assert store.bytes <= 4 * OVERHEAD


def test_a_smaller_bound_holds_at_once(request_for: Callable[..., Exchange]) -> None:
    """As after a reload; zero keeps nothing."""
    store = Store(BOUND)
    for n in range(5):
        exchange = request_for(target=f"/{n}")
        store.put(primary_key(exchange), exchange, entry(10))
    store.resize(2 * OVERHEAD + 200)
    assert len(store) == 1 or store.bytes <= 2 * OVERHEAD + 200
    store.resize(0)
    assert (len(store), store.bytes) == (0, 0)
    exchange = request_for()
    assert not store.put(primary_key(exchange), exchange, entry(10))


@pytest.mark.parametrize("vary", ["*", "accept, *", "x-request-id", "traceparent, accept"])
def test_what_can_t_be_found_again_is_not_put(vary: str, request_for: Callable[..., Exchange]) -> None:
    """An answer that varies by what is never the same would only take room."""
    store, exchange = Store(BOUND), request_for()

    assert not store.put(primary_key(exchange), exchange, entry(1, vary))


def test_what_is_not_kept_takes_no_room_to_speak_of() -> None:
    """Marks are small however long the targets are: anybody can ask for, and write to, new ones all day."""
    store = Store()
    tracemalloc.start()
    for n in range(200):
        primary = ("shop", "http", b"h", b"/%d/" % n + b"x" * 8000)
        store.pass_by((primary, (), ()))
        store.forget(primary)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert store.passes((primary, (), ()))
    assert store.outdated(primary, -1.0)
    assert taken < 200 * 1000


def test_passes_are_bounded_and_end() -> None:
    """A million private targets leave ten thousand marks, each for a few seconds."""
    clock = Clock(0.0)
    store = Store(clock=clock)
    keys: list[Key] = [(("shop", "http", b"h", b"/%d" % n), (), ()) for n in range(MAX_PASSES + 5)]
    for key in keys:
        store.pass_by(key)

    assert not store.passes(keys[0])
    assert store.passes(keys[-1])
    clock.now = PASS_FOR
    assert not store.passes(keys[-1])
