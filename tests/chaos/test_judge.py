"""The judge is judged: each way of breaking the shop's word is seeded by hand, and it must name it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.chaos.journal import End, Operation
from tests.chaos.judge import Capture, Facts, Order, judge, see


@dataclass
class Case:
    """A sale that went well: one key delivered, one payment given back, one order unanswered but there."""

    operations: list[Operation] = field(default_factory=list)
    orders: dict[str, Order] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    captures: dict[str, Capture] = field(default_factory=dict)
    recorded: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=lambda: {"K1": "card", "K2": "card", "X1": "other"})
    caps: dict[str, int] = field(default_factory=lambda: {"card": 1, "other": 1})

    def said(self, op: str, end: End = "ok", told: dict[str, Any] | None = None, **asked: Any) -> None:
        self.operations.append(Operation(op, end, asked, told or {}))

    def order(self, key: str, user: str, order_id: str | None, end: End = "ok") -> None:
        self.said("order", end, {"order_id": order_id} if order_id else {}, key=key, user=user)

    def read(self, order_id: str, status: str, *cards: str, final: bool = False) -> None:
        self.said("read", told={"status": status, "cards": list(cards)}, order_id=order_id, final=final)

    def pay(self, order_id: str, payment_id: str) -> None:
        self.said("pay", told={"payment_id": payment_id}, order_id=order_id, outcome="success")

    def wrong(self) -> list[str]:
        facts = Facts(
            self.orders, frozenset(self.dead), self.captures, frozenset(self.recorded), self.keys, self.caps
        )
        return judge(see(self.operations), facts)


@pytest.fixture
def case() -> Case:
    case = Case()
    case.order("k1", "ann", None, "unknown")
    case.order("k1", "ann", "o1")
    case.order("k2", "bob", "o2")
    case.order("k3", "eve", None, "unknown")
    case.order("k4", "mal", None, "fail")
    case.order("k5", "zoe", "o5")
    case.pay("o1", "p1")
    case.said("pay", "unknown", order_id="o2", outcome="success")
    case.read("o1", "pending")
    case.read("o1", "delivered", "K1")
    case.read("o1", "delivered", "K1", final=True)
    case.read("o2", "refunded", final=True)
    case.read("o5", "expired", final=True)
    case.said("callback", "fail", kind="forged", payment_id="p1")
    case.said("callback", kind="replayed", payment_id="p1")
    case.orders = {
        "o1": Order("ann", "card", 1, "delivered"),
        "o2": Order("bob", "card", 1, "refunded"),
        "o3": Order("eve", "card", 1, "expired"),
    }
    case.dead = {"o5"}
    case.captures = {"p1": Capture("o1", 500, 0), "p2": Capture("o2", 500, 500)}
    case.recorded = {"p1", "p2"}
    return case


def test_a_sale_that_went_well_is_clean(case: Case) -> None:
    """No false alarm; what nobody answered may be there or not."""
    assert case.wrong() == []
    del case.orders["o3"]
    assert case.wrong() == []


def _put(case: Case, order_id: str, user: str, *, state: str = "expired", quantity: int = 1) -> None:
    case.orders[order_id] = Order(user, "card", quantity, state)


def _second(
    case: Case, *, keys: tuple[str, ...], user: str = "bob", quantity: int = 1, imported: int = 2
) -> None:
    """Deliver order o2 too, by the money it took."""
    if imported < 2:
        del case.keys["K2"]
    _put(case, "o2", user, state="delivered", quantity=quantity)
    case.captures["p2"] = Capture("o2", 500, 0)
    case.operations = [each for each in case.operations if each.asked.get("order_id") != "o2"]
    case.pay("o2", "p2")
    case.read("o2", "delivered", *keys, final=True)


VIOLATIONS: dict[str, tuple[str, Callable[[Case], object]]] = {
    "an accepted order is nowhere": ("lost: order o1", lambda c: c.orders.pop("o1")),
    "a dead letter is gone": ("lost: order o5", lambda c: c.dead.clear()),
    "one key, two orders": ("k1 was answered with 2 orders", lambda c: c.order("k1", "ann", "o2")),
    "an order nobody asked for": ("user who has 1 orders", lambda c: _put(c, "o9", "who")),
    "an order that was surely refused": ("user mal has 1 orders", lambda c: _put(c, "o4", "mal")),
    "one doubt, two orders": ("user eve has 2 orders", lambda c: _put(c, "o9", "eve")),
    "one checkout captured twice": ("captured 2 times", lambda c: c.pay("o1", "p9")),
    "the provider forgets": ("the provider forgot", lambda c: c.captures.pop("p1")),
    "money nobody paid": ("nobody paid it", lambda c: c.captures.update(p9=Capture("o3", 500, 500))),
    "a ghost": ("ghost: payment p1", lambda c: c.recorded.discard("p1")),
    "money without goods": (
        "money was not given back",
        lambda c: c.captures.update(p2=Capture("o2", 500, 0)),
    ),
    "money for a lost order": ("is nowhere, the money", lambda c: c.orders.pop("o1")),
    "one key to two buyers": ("delivered twice", lambda c: _second(c, keys=("K1",))),
    "a key of another product": ("not of its product", lambda c: _second(c, keys=("X1",))),
    "a key that was never imported": ("not of its product", lambda c: _second(c, keys=("K9",))),
    "half of what was ordered": ("of 2 got 1 keys", lambda c: _second(c, keys=("K2",), quantity=2)),
    "more than there are": ("oversold: 2 of card", lambda c: _second(c, keys=(), imported=1)),
    "more than one may have": ("the cap is 1", lambda c: _second(c, keys=("K2",), user="ann")),
    "a delivery taken back": ("was delivered, then refunded", lambda c: c.read("o1", "refunded")),
    "other keys than before": ("with other keys", lambda c: c.read("o1", "delivered", "K2")),
    "an order that never ends": ("still pending", lambda c: c.read("o2", "pending", final=True)),
    "an order nobody finds": ("nobody finds it", lambda c: c.said("read", "fail", order_id="o2", final=True)),
    "a false callback believed": (
        "p9 was accepted",
        lambda c: c.said("callback", kind="stale", payment_id="p9"),
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_broken_word_is_named(case: Case, name: str) -> None:
    """Broken by hand, named with its ids."""
    says, seed = VIOLATIONS[name]
    seed(case)

    assert any(says in violation for violation in case.wrong()), case.wrong()
