"""Whose address a request has: through trusted proxies the client's, else the peer's."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import config
from gateway.addresses import client_network, parse
from gateway.exchange import Exchange
from gateway.identity import Identity

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))


def identified(peer: str, *headers: tuple[bytes, bytes], trusted: Any = TRUSTED) -> Exchange:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    exchange = Exchange(
        method="GET",
        target=b"/",
        path="/",
        headers=list(headers),
        host=b"a",
        address=peer,
        receive=receive,
        started=0.0,
    )
    Identity(config.Identity(), trusted).identify(exchange)
    return exchange


@pytest.mark.parametrize(
    ("peer", "fields", "address", "chain"),
    [
        ("192.0.2.1", [], "192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1", "192.0.2.1"),  # forged: the peer is not trusted
        ("10.0.0.1", [], "10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1"], "192.0.2.1", "192.0.2.1, 10.0.0.1"),
        ("10.0.0.1", ["198.51.100.9, 192.0.2.1"], "192.0.2.1", "192.0.2.1, 10.0.0.1"),  # forged on the left
        ("10.0.0.1", ["192.0.2.1, 10.0.0.2"], "192.0.2.1", "192.0.2.1, 10.0.0.2, 10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1", "10.0.0.2"], "192.0.2.1", "192.0.2.1, 10.0.0.2, 10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3", "10.0.0.3, 10.0.0.2, 10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1, rubbish, 10.0.0.2"], "10.0.0.2", "10.0.0.2, 10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1,"], "10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1:4711"], "192.0.2.1", "192.0.2.1, 10.0.0.1"),
        ("10.0.0.1", ["[2001:DB8::0:1]:4711"], "2001:db8::1", "2001:db8::1, 10.0.0.1"),
        ("10.0.0.1", ["::ffff:192.0.2.1"], "192.0.2.1", "192.0.2.1, 10.0.0.1"),
        ("::ffff:10.0.0.1", ["192.0.2.1"], "192.0.2.1", "192.0.2.1, 10.0.0.1"),
        ("2001:db8:1::1", ["192.0.2.1"], "192.0.2.1", "192.0.2.1, 2001:db8:1::1"),
        ("fe80::1%eth0", [], "fe80::1", "fe80::1"),
        ("", ["192.0.2.1"], "unix", "unknown"),
        ("testclient", [], "unix", "unknown"),
    ],
)
def test_table(peer: str, fields: list[str], address: str, chain: str) -> None:
    """Right to left, through trusted hops only, up to the first entry that says nothing."""
    exchange = identified(peer, *[(b"x-forwarded-for", field.encode()) for field in fields])
    assert (exchange.address, exchange.forwarded_for.decode()) == (address, chain)


@given(st.lists(st.sampled_from(["10.0.0.7", "192.0.2.1", "::1", "", "1.2.3.4.5"]) | st.text(max_size=8)))
def test_a_forged_header_buys_nothing(entries: list[str]) -> None:
    """Whatever a client puts into the field, behind a trusted proxy it has the address the proxy saw."""
    field = ",".join([*entries, " 203.0.113.5"]).encode("utf-8", "replace")
    exchange = identified("10.0.0.1", (b"x-forwarded-for", field))
    assert exchange.address == "203.0.113.5"
    assert exchange.forwarded_for == b"203.0.113.5, 10.0.0.1"
    assert identified("203.0.113.5", (b"x-forwarded-for", field)).address == "203.0.113.5"


def test_a_long_chain_is_cut() -> None:
    """A field of thousands of trusted entries is not walked to its end."""
    exchange = identified("10.0.0.1", (b"x-forwarded-for", b"10.0.0.1, " * 3000 + b"10.0.0.1"))
    assert exchange.forwarded_for.count(b",") == 32


@pytest.mark.parametrize(
    ("peer", "fields", "scheme"),
    [
        ("192.0.2.1", [b"https"], "http"),
        ("10.0.0.1", [b"https"], "https"),
        ("10.0.0.1", [b"HTTPS"], "https"),
        ("10.0.0.1", [b"https, http"], "http"),
        ("10.0.0.1", [b"http", b"https"], "https"),
        ("10.0.0.1", [b"gopher"], "http"),
        ("10.0.0.1", [], "http"),
    ],
)
def test_scheme(peer: str, fields: list[bytes], scheme: str) -> None:
    """X-Forwarded-Proto counts from trusted proxies; the nearest one's word is the last."""
    assert identified(peer, *[(b"x-forwarded-proto", field) for field in fields]).scheme == scheme


def test_no_trusted_proxies() -> None:
    """Without any, the peer is the client."""
    exchange = identified("10.0.0.1", (b"x-forwarded-for", b"192.0.2.1"), trusted=())
    assert (exchange.address, exchange.forwarded_for) == ("10.0.0.1", b"10.0.0.1")


def test_garbage_is_not_remembered() -> None:
    """A peer that may speak for others can't fill the memory with what is no address."""
    identified("10.0.0.1", (b"x-forwarded-for", b"192.0.2.1"))
    before = parse.cache_info().currsize
    for number in range(50):
        garbage = b"%d" % number + b"x" * 8000
        assert identified("10.0.0.1", (b"x-forwarded-for", garbage)).address == "10.0.0.1"
    assert parse.cache_info().currsize == before


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("?", None),
        ("", None),
    ],
)
def test_one_client_has_a_whole_network_in_ipv6(address: str, network: str | None) -> None:
    """What limits and guessed tokens are counted by."""
    assert client_network(address) == network
