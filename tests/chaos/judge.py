"""The verdict on a run, by what the clients wrote down: `ok ≤ what is there ≤ ok + unknown`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.chaos.journal import Operation

_NEVER_BELIEVED = {"forged", "stale"}


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it lies in SQL."""

    user: str
    sku: str
    quantity: int
    state: str


@dataclass(frozen=True, slots=True)
class Capture:
    """Money that the provider took."""

    order_id: str
    amount_cents: int
    refunded_cents: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is there after a run.

    Attributes:
        orders: in SQL, by order id.
        dead: order ids among the dead letters.
        captures: at the provider, by payment id.
        recorded: payment ids that we recorded as captured.
        keys: every card key that was imported, and its product.
        caps: by product, what one buyer may have.
    """

    orders: Mapping[str, Order]
    dead: frozenset[str]
    captures: Mapping[str, Capture]
    recorded: frozenset[str]
    keys: Mapping[str, str]
    caps: Mapping[str, int]


@dataclass
class Seen:
    """What the clients saw, put together.

    Attributes:
        ids: idempotency key → the order ids it was answered with.
        user_of: idempotency key → its buyer.
        unknown: keys that may have been accepted, nobody told.
        accepted: every order id answered 202.
        paid: order id → payment ids told to have been captured.
        maybe_paid: order ids with a payment that nobody answered.
        reads: order id → (status, keys), in the order of reading.
        last: order id → the status read after the sale; None: it was not found.
        believed: payment ids of callbacks that should have been refused, and were not.
    """

    ids: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    user_of: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    paid: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    maybe_paid: set[str] = field(default_factory=set)
    reads: dict[str, list[tuple[str, tuple[str, ...]]]] = field(default_factory=lambda: defaultdict(list))
    last: dict[str, str | None] = field(default_factory=dict)
    believed: list[str] = field(default_factory=list)


def see(operations: Iterable[Operation]) -> Seen:
    """Put the clients' journals together."""
    seen = Seen()
    for each in operations:
        match each.op:
            case "order":
                key = each.asked["key"]
                seen.user_of[key] = each.asked["user"]
                if each.end == "ok":
                    seen.ids[key].add(each.told["order_id"])
                    seen.accepted.add(each.told["order_id"])
                elif each.end == "unknown":
                    seen.unknown.add(key)
            case "pay" if each.asked["outcome"] == "success":
                if each.end == "ok":
                    seen.paid[each.asked["order_id"]].add(each.told["payment_id"])
                elif each.end == "unknown":
                    seen.maybe_paid.add(each.asked["order_id"])
            case "read":
                order_id = each.asked["order_id"]
                if each.end == "ok":
                    seen.reads[order_id].append((each.told["status"], tuple(each.told["cards"])))
                if each.asked["final"]:
                    seen.last[order_id] = each.told["status"] if each.end == "ok" else None
            case "callback" if each.asked["kind"] in _NEVER_BELIEVED and each.end == "ok":
                seen.believed.append(each.asked["payment_id"])
    seen.unknown -= seen.ids.keys()
    return seen


def judge(seen: Seen, facts: Facts) -> list[str]:
    """Everything that is wrong; empty when the shop kept its word."""
    return [
        *_orders(seen, facts),
        *_money(seen, facts),
        *_goods(seen, facts),
        *_words(seen),
        *(f"a false callback about {payment_id} was accepted" for payment_id in seen.believed),
    ]


def _orders(seen: Seen, facts: Facts) -> Iterator[str]:
    """Each accepted order is there, and no other that could not be."""
    there = facts.orders.keys() | facts.dead
    for order_id in sorted(seen.accepted - there):
        yield f"lost: order {order_id} was answered 202 and is nowhere"
    for key, ids in sorted(seen.ids.items()):
        if len(ids) > 1:
            yield f"key {key} was answered with {len(ids)} orders: {', '.join(sorted(ids))}"
    doubtful = Counter(seen.user_of[key] for key in seen.unknown)
    strangers: dict[str, list[str]] = defaultdict(list)
    for order_id in facts.orders.keys() - seen.accepted:
        strangers[facts.orders[order_id].user].append(order_id)
    for user, found in sorted(strangers.items()):
        if len(found) > doubtful[user]:
            yield (
                f"user {user} has {len(found)} orders that were never answered ({', '.join(sorted(found))}), "
                f"and asked for {doubtful[user]} without an answer"
            )


def _money(seen: Seen, facts: Facts) -> Iterator[str]:
    """Each payment is at the provider and recorded, and its order came to an end that fits."""
    for order_id, payments in sorted(seen.paid.items()):
        if len(payments) > 1:
            yield f"order {order_id} was captured {len(payments)} times: {', '.join(sorted(payments))}"
        for payment_id in sorted(payments - facts.captures.keys()):
            yield f"payment {payment_id} of order {order_id} was captured, the provider forgot it"
    for payment_id, capture in sorted(facts.captures.items()):
        if capture.order_id not in seen.paid and capture.order_id not in seen.maybe_paid:
            yield f"payment {payment_id} of order {capture.order_id} was captured, nobody paid it"
        if payment_id not in facts.recorded:
            yield f"ghost: payment {payment_id} of order {capture.order_id} was captured and not recorded"
        order = facts.orders.get(capture.order_id)
        funded = order is not None and order.state == "delivered"
        if not funded and capture.refunded_cents != capture.amount_cents:
            state = order.state if order else "nowhere"
            yield f"payment {payment_id}: order {capture.order_id} is {state}, the money was not given back"


def _goods(seen: Seen, facts: Facts) -> Iterator[str]:
    """Each key once, to one order, of the right product; never more than there are, or than one may have."""
    owner: dict[str, str] = {}
    for order_id, reads in sorted(seen.reads.items()):
        keys = {key for _, cards in reads for key in cards}
        order = facts.orders.get(order_id)
        for key in sorted(keys):
            if key not in facts.keys or order is None or facts.keys[key] != order.sku:
                yield f"order {order_id} got a key that is not of its product"
            if owner.setdefault(key, order_id) != order_id:
                yield f"delivered twice: one key to the orders {owner[key]} and {order_id}"
        if order is not None and keys and len(keys) != order.quantity:
            yield f"order {order_id} of {order.quantity} got {len(keys)} keys"
    imported = Counter(facts.keys.values())
    sold: Counter[str] = Counter()
    bought: Counter[tuple[str, str]] = Counter()
    for order in facts.orders.values():
        if order.state == "delivered":
            sold[order.sku] += order.quantity
            bought[order.user, order.sku] += order.quantity
    for sku, n in sorted(sold.items()):
        if n > imported[sku]:
            yield f"oversold: {n} of {sku}, of which there are {imported[sku]}"
    for (user, sku), n in sorted(bought.items()):
        if n > facts.caps[sku]:
            yield f"user {user} was delivered {n} of {sku}, the cap is {facts.caps[sku]}"


def _words(seen: Seen) -> Iterator[str]:
    """What a buyer was once told stays true, and in the end everyone is told something."""
    for order_id, reads in sorted(seen.reads.items()):
        told: tuple[str, tuple[str, ...]] | None = None
        for status, cards in reads:
            if told is not None and told[0] == "delivered" and (status, cards) != told:
                yield f"order {order_id} was delivered, then {status} or with other keys"
                break
            told = (status, cards)
    for order_id, last in sorted(seen.last.items()):
        if last is None:
            yield f"order {order_id} was answered 202, and after the sale nobody finds it"
        elif last in {"reserved", "pending", "paid"}:
            yield f"order {order_id} is still {last} long after the sale"
