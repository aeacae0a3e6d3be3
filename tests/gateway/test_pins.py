"""Operators' pins: the newest wins everywhere, they end, they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import load
from gateway.state.pins import Pin, Pins
from gateway.state.switches import LiveSwitches, Switches, work_out
from tests.clock import Clock

CONFIG = load(
    b"""
upstreams: {shop: {servers: ['http://127.0.0.1:9'], breaker: {}}}
limits: {user: {rate: 5/second, per: user}}
features: {a: {}, b: {}, c: {state: 'off'}, d: {state: 'on'}}
degradation: {steps: [{name: one, off: [a, d]}, {name: two, off: [b]}, {name: three, only: critical}]}
routes: [{match: '/**', upstream: shop}]
""",
    "test.yaml",
    {},
)


pins = st.builds(
    Pin,
    kind=st.just("feature"),
    name=st.sampled_from(["a", "b"]),
    value=st.sampled_from(["on", "off", "auto"]),
    at=st.integers(1, 5),
    by=st.sampled_from(["x", "y"]),
)


@given(st.lists(pins, max_size=12), st.randoms())
def test_hosts_agree_in_whatever_order_they_hear(heard: list[Pin], random: object) -> None:
    """Merging is commutative and idempotent: hosts that heard the same hold the same."""
    one, other = Pins(None, Clock(1_000_000.0)), Pins(None, Clock(1_000_000.0))
    shuffled = list(heard)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one.merge(heard)
    for pin in shuffled:
        other.merge([pin])
        other.merge([pin])

    assert {p.name: p for p in one.all()} == {p.name: p for p in other.all()}


def test_a_pin_ends_and_remembers_what_was_before() -> None:
    """`for` ends a pin; the next one names what it replaced; even on a clock that is behind it is newer."""
    clock = Clock(1_000_000.0)
    kept = Pins(None, clock)
    kept.put("feature", "a", "off", lasts=10, reason="", by="x")
    assert kept.value("feature", "a") == "off"
    second = kept.put("feature", "a", "on", lasts=5, reason="", by="x")
    assert second.old == "off"
    clock.now += 5
    assert kept.value("feature", "a") is None
    clock.now -= 3600
    third = kept.put("feature", "a", "off", lasts=None, reason="", by="x")
    assert third.at > second.at


def test_pins_are_kept_in_their_file(tmp_path: Path) -> None:
    """Over a restart, pins are what they were; a spoilt file is told of and means none."""
    path = tmp_path / "deep" / "switches.json"
    first = Pins(path, Clock(1_000_000.0))
    first.put("step", "", "2", lasts=None, reason="sale", by="x")

    second = Pins(path, Clock(1_000_000.0))

    assert second.value("step", "") == "2"
    assert [pin.reason for pin in second.all()] == ["sale"]
    path.write_text('{"pins": [{"kind": "nonsense"}]}')
    assert Pins(path, Clock(1_000_000.0)).all() == []


def test_an_unwritable_file_stops_no_switch(tmp_path: Path) -> None:
    """The switch works; only a restart would forget it."""
    (tmp_path / "file").write_text("")
    kept = Pins(tmp_path / "file" / "switches.json", Clock(1_000_000.0))

    kept.put("feature", "a", "off", lasts=None, reason="", by="x")

    assert kept.value("feature", "a") == "off"


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "[]",
        "{}",
        '{"kind": "feature"}',
        '{"kind": "x", "name": "", "value": ""}',
        '{"kind": "feature", "name": "a", "value": "off", "at": "1"}',
        '{"kind": [], "name": "a", "value": "off"}',
        '{"kind": "feature", "name": "a", "value": "off", "at": true}',
        '{"kind": "feature", "name": "a", "value": "off", "at": -1}',
        '{"kind": "feature", "name": "a", "value": "off", "at": 1' + "0" * 400 + "}",
        '{"kind": "feature", "name": "a", "value": "off", "until": "soon"}',
        '{"kind": "feature", "name": "a", "value": "off", "until": true}',
        '{"kind": "feature", "name": "a", "value": "off", "until": NaN}',
        '{"kind": "feature", "name": "a", "value": "off", "until": Infinity}',
        '{"kind": "feature", "name": "a", "value": "off", "until": 1' + "0" * 400 + "}",
    ],
)
def test_what_is_no_pin_is_refused(raw: str) -> None:
    """Redis may hold anything."""
    with pytest.raises(ValueError):  # noqa: PT011 - json's own errors are ValueErrors too
        Pin.parse(raw)


def test_pin_over_configuration_over_ladder() -> None:
    """A pin wins over the file's word, which wins over the ladder; rungs add up."""
    kept = Pins(None, Clock(1_000_000.0))

    def off(climbed: int) -> set[str]:
        return set(work_out(CONFIG, climbed, kept.value).off)

    assert (off(0), off(1), off(2)) == ({"c"}, {"a", "c"}, {"a", "b", "c"})  # d is "on" in the file
    kept.put("feature", "a", "on", lasts=None, reason="", by="x")
    kept.put("feature", "c", "on", lasts=None, reason="", by="x")
    kept.put("feature", "d", "off", lasts=None, reason="", by="x")
    assert off(3) == {"b", "d"}
    kept.put("step", "", "0", lasts=None, reason="", by="x")
    switches = work_out(CONFIG, 3, kept.value)
    assert (switches.step, switches.critical_only) == (0, False)
    kept.put("step", "", "9", lasts=None, reason="", by="x")  # from before the ladder was shortened
    assert work_out(CONFIG, 0, kept.value).step == 3
    assert work_out(CONFIG, 0, kept.value).critical_only


def test_switches_cross_the_channel_whole() -> None:
    """What the master worked out is what the worker serves by."""
    switches = Switches(2, frozenset({"a"}), True, {"shop": "open"}, {"user": "off"})
    live = LiveSwitches(Switches.from_json(switches.to_json()))

    assert live.now == switches
    assert (live.is_on("a"), live.is_on("b"), live.only_critical(), live.step()) == (False, True, True, 2)
    assert live.degraded == "a"
