"""Many distinct users: each table that could grow with them has a bound, and keeps to it."""

from __future__ import annotations

import os
from pathlib import Path

import jwt
import pytest

from gateway import config
from gateway.errors import BadRequest
from gateway.exchange import Terms
from gateway.field import Block
from gateway.identity import Identity
from gateway.policies.limit_key import key_of, unrefused
from gateway.state.counters import REMEMBERED, SharedCounters, shared_memory
from gateway.state.limits import SharedLimits
from gateway.state.limits_full import MAX_KEYS as MAX_FULL
from gateway.state.limits_local import LocalLimits
from gateway.state.limits_owed import MAX_KEYS as MAX_OWED
from gateway.state.limits_owed import Owed
from gateway.tokens import MAX_CACHED, MAX_REFUSED
from tests.gateway.identity.test_tokens import NOW, SECRET, exchange_with
from tests.gateway.limits.reference import hit_of
from tests.gateway.limits.test_policy import request

USERS = 60_000  # more than any of the tables holds


def test_what_is_owed_is_bounded() -> None:
    """With Redis away for long, the newest debts are kept; the oldest are forgiven."""
    owed, terms = Owed(), Terms("user", 5, 60.0)
    for n in range(USERS):
        owed.add(terms, f"u:{n}", n, 1)
    assert len(owed) == MAX_OWED
    debts = list(owed.pop(USERS, USERS * 2))
    assert [key for _, key, _ in debts] == [f"u:{n}" for n in reversed(range(USERS - MAX_OWED, USERS))]
    assert not owed


def test_a_crowd_does_not_drive_out_what_is_used() -> None:
    """What is owed of a limit for all is told to the last token, however many users come beside it."""
    owed, everyone = Owed(), Terms("all", USERS, 60.0)
    for n in range(USERS):
        owed.add(Terms("user", 5, 60.0), f"u:{n}", 0, 1)
        owed.add(everyone, "", 0, 1)
    told = {terms.limit: sum(taken[1::2]) for terms, key, taken in owed.pop(0, USERS * 2) if not key}
    assert told == {"all": USERS}


def test_counters_of_a_host_are_bounded() -> None:
    """The table that workers share stays as it was made, whoever comes; so does what each remembers."""
    fd = shared_memory(1 << 12)
    size = os.fstat(fd).st_size
    counters = SharedCounters(fd)
    limits = LocalLimits(counters, clock=lambda: NOW)
    for n in range(USERS):
        limits.try_take([hit_of("user", f"u:{n}", 1, 60.0)])
    assert len(counters) <= 1 << 12
    assert len(counters._places) <= REMEMBERED
    assert os.fstat(fd).st_size == size
    os.close(fd)


def test_a_store_that_is_away_is_bounded(short_tmp: Path) -> None:
    """Attackers over their limits, without Redis: what is known of them has its bounds too."""
    limits = SharedLimits(f"unix://{short_tmp}/nobody.sock", timeout=0.02, prefix="test", workers=1)
    hits = [hit_of("user", f"u:{n}", 1, 60.0) for n in range(USERS)]
    for hit in hits:
        assert limits.try_take([hit])
        assert limits.try_take([hit])
    assert len(limits._share.owed) == MAX_OWED
    assert len(limits._share._local._full) <= MAX_FULL


def test_tokens_are_remembered_in_bounded_memory(tmp_path: Path) -> None:
    """Valid ones and forged ones, each up to its bound; and the valid ones are still told from the forged."""
    file = tmp_path / "secret"
    file.write_text(SECRET)
    jwt_ = config.Jwt(algorithm="HS256", key_file=file)
    identity = Identity(config.Identity(header="authorization", jwt=jwt_), (), clock=lambda: NOW)

    def who(token: str) -> str | None:
        exchange = exchange_with((b"authorization", b"Bearer " + token.encode()))
        identity.identify(exchange)
        return exchange.user

    for n in range(MAX_CACHED + 100):
        token = jwt.encode({"sub": f"u-{n}", "exp": NOW + 60}, SECRET, algorithm="HS256")
        assert who(token) == f"u-{n}"
        if n < MAX_REFUSED + 100:
            assert who(f"{token[:-1]}{'A' if token[-1] != 'A' else 'B'}{n}") is None
    tokens = identity._tokens
    assert tokens is not None
    # In two generations: never more than all, never less than the last half.
    assert MAX_CACHED // 2 <= len(tokens._verified) <= MAX_CACHED
    assert MAX_REFUSED // 2 <= len(tokens._refused) <= MAX_REFUSED


def test_keys_of_many_are_short() -> None:
    """Whatever a header holds, its key takes no more than so many characters."""
    key = key_of(("user", "header:x-client"))
    for length in (0, 10, 100, 10_000):
        exchange = request(user="u" * 128, headers=[(b"x-client", b"\xff" * length)])
        assert len(key(exchange)) < 100


def test_a_second_value_makes_no_second_client() -> None:
    """Upstreams go by the first or the last: who sends another beside its own would be counted anew."""
    key = key_of(("header:x-api-key",))
    one = request(headers=[(b"x-api-key", b"a")])
    same = request(headers=[(b"x-api-key", b"a"), (b"x-api-key", b"a")])
    two = request(headers=[(b"x-api-key", b"a"), (b"x-api-key", b"b")])
    assert key(one) == key(same)
    for headers in (two.headers, Block(two.headers)):
        two.headers = headers
        with pytest.raises(BadRequest, match="x-api-key"):
            key(two)
        assert unrefused(key)(two) == "?"  # a limit in the shadow refuses nobody
    assert unrefused(key)(one) == key(one)
