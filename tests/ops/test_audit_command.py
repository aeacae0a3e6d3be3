"""`tidegate audit` as a command, and the providers' books that it reads."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

from ops import datadir
from ops.audit import command
from ops.audit.ledgers import Capture, read_sandbox, read_stripe
from ops.cli import main
from ops.errors import Unreachable
from tests.ops.audit_world import DELIVERED, EXPIRED, PENDING, REFUNDED, World
from tests.ops.http_server import Asked, serving


def _serving(
    answer: Callable[[str, Message], dict[str, Any] | None],
) -> contextlib.AbstractContextManager[str]:
    """An HTTP server's URL; it answers a path and its header with a document, or with 401 for None."""

    def said(asked: Asked) -> tuple[int, bytes]:
        document = answer(asked.path, asked.header)
        if document is None:
            return 401, json.dumps({"error": "wrong secret"}).encode()
        return 200, json.dumps(document).encode()

    return serving(said)


@pytest.fixture
def provider() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A provider's ledger behind HTTP: its URL and the payments it serves, one a page."""
    payments: list[dict[str, Any]] = []

    def answer(path: str, header: Message) -> dict[str, Any] | None:
        since = int(path.partition("since=")[2].partition("&")[0])
        found = [payment for payment in payments if payment["seq"] > since][:1]
        page = {"payments": found, "next": found[-1]["seq"] if found else since}
        return page if header["Authorization"] == "Bearer whsec_x" else None

    with _serving(answer) as url:
        yield url, payments


def _payment(seq: int, capture: Capture, outcome: str = "succeeded") -> dict[str, Any]:
    return {
        "seq": seq,
        "id": capture.payment_id,
        "order_id": capture.order_id,
        "amount_cents": capture.amount_cents,
        "currency": capture.currency,
        "refunded_cents": capture.refunded_cents,
        "outcome": outcome,
    }


def test_the_ledger_is_read_to_its_end(provider: tuple[str, list[dict[str, Any]]]) -> None:
    """Page after page, successes only; a wrong secret is an error, not an empty ledger."""
    url, payments = provider
    captures = [Capture("p1", DELIVERED, 1000, 0), Capture("p3", REFUNDED, 500, 500)]
    payments += [_payment(1, captures[0]), _payment(2, captures[0], "failed"), _payment(3, captures[1])]

    assert read_sandbox(url, "whsec_x") == captures
    with pytest.raises(Unreachable, match="401"):
        read_sandbox(url, "whsec_wrong")


@pytest.fixture
def stripe() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """PaymentIntents behind HTTP as Stripe lists them: newest first, two a page."""
    intents: list[dict[str, Any]] = []

    def answer(path: str, header: Message) -> dict[str, Any] | None:
        parts = urlsplit(path)
        words = parse_qs(parts.query)
        names = [intent["id"] for intent in intents]
        start = names.index(words["starting_after"][0]) + 1 if "starting_after" in words else 0
        more = start + 2 < len(intents)
        right = (
            parts.path == "/v1/payment_intents"
            and words["expand[]"] == ["data.latest_charge"]
            and header["Authorization"] == "Bearer sk_test_x"
            and header["Stripe-Version"]
        )
        page = {"object": "list", "has_more": more, "data": intents[start : start + 2]}
        return page if right else None

    with _serving(answer) as url:
        yield url, intents


def _intent(name: str, order_id: str, units: int, currency: str, refunded: int = 0) -> dict[str, Any]:
    return {
        "id": name,
        "object": "payment_intent",
        "status": "succeeded",
        "amount": units,
        "amount_received": units,
        "currency": currency,
        "metadata": {"order_id": order_id} if order_id else {},
        "latest_charge": {"object": "charge", "amount_refunded": refunded},
    }


def test_stripe_s_books_are_read_to_their_end(stripe: tuple[str, list[dict[str, Any]]]) -> None:
    """Ours that succeeded, in hundredths whatever the currency counts in; a wrong key is an error."""
    url, intents = stripe
    intents += [
        _intent("pi_1", DELIVERED, 1000, "eur"),
        _intent("pi_2", REFUNDED, 500, "jpy", refunded=500),
        _intent("pi_3", PENDING, 5000, "kwd"),
        _intent("pi_other_shop", "", 700, "eur"),
        _intent("pi_declined", EXPIRED, 500, "eur")
        | {"status": "requires_payment_method", "latest_charge": None, "amount_received": 0},
    ]

    assert read_stripe(url, "sk_test_x") == [
        Capture("pi_1", DELIVERED, 1000, 0, "EUR", "stripe"),
        Capture("pi_2", REFUNDED, 50000, 50000, "JPY", "stripe"),
        Capture("pi_3", PENDING, 500, 0, "KWD", "stripe"),
    ]
    with pytest.raises(Unreachable, match="401") as refusal:
        read_stripe(url, "sk_test_wrong")
    assert "sk_test" not in str(refusal.value)


def test_the_command_compares_with_stripe_too(
    world: World,
    provider: tuple[str, list[dict[str, Any]]],
    stripe: tuple[str, list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    """With a key each capture is looked for at its provider; without one the audit says so."""
    url, payments = provider
    stripe_url, intents = stripe
    payments.append(_payment(1, world.captures[1]))
    intents.append(_intent("pay1", DELIVERED, 1000, "eur"))
    world.sql("UPDATE payments SET provider = 'stripe' WHERE payment_id = 'pay1'")
    known = {"TIDEGATE_STRIPE_URL": stripe_url, "TIDEGATE_STRIPE_API_KEY": "sk_test_x"}

    clean = _run(world, url, tmp_path, **known)
    intents[0]["amount_received"] = 999
    broken = _run(world, url, tmp_path, **known)
    blind = _run(world, url, tmp_path)

    assert clean.exit_code == 0, clean.output
    assert "I6: pay1: we have 1000 EUR" in broken.output
    assert "the ledger of stripe was not read" in blind.output
    assert "set TIDEGATE_STRIPE_API_KEY" in blind.output


def _run(world: World, url: str, folder: Path, *words: str, **more: str) -> Any:
    datadir.write_state(folder, {"urls": {"sandbox": url}, "stores": {}})
    environment = {
        "TIDEGATE_DATABASE_URL": world.database_url,
        "TIDEGATE_STOCK_REDIS_URL": world.redis_url,
        "TIDEGATE_SANDBOX_SECRET": "whsec_x",
        "TIDEGATE_DATA_DIR": str(folder),
        **more,
    }
    return CliRunner().invoke(main, ["audit", "--wait", "0", *words], env=environment)


def test_the_command_says_what_holds_and_what_does_not(
    world: World, provider: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Exit 0 and twelve lines when clean; exit 1 and the violation named when not."""
    url, payments = provider
    payments += [_payment(seq, capture) for seq, capture in enumerate(world.captures, 1)]

    clean = _run(world, url, tmp_path)
    world.sql("UPDATE products SET per_user_cap = 2")
    broken = _run(world, url, tmp_path)
    document = json.loads(_run(world, url, tmp_path, "--json").output)

    assert (clean.exit_code, broken.exit_code) == (0, 1), clean.output
    assert clean.output.count(" holds  ") == 12
    assert clean.output.endswith("\nevery invariant holds\n")
    assert broken.output.endswith("\n1 violation\n")
    assert "I9: card: user ann has 3, the cap is 2" in broken.output
    assert document["clean"] is False
    assert document["violations"]["I9"] == ["card: user ann has 3, the cap is 2"]


def test_what_holds_at_every_moment_is_seen_while_a_sale_goes_on(world: World, tmp_path: Path) -> None:
    """Mails unsent, streams full, provider and Redis away: nothing wrong; I1 and I5 are among the checks."""
    world.sql("UPDATE outbox SET state = 'pending'")
    with world.redis() as client:
        client.flushall()

    answer = _run(world, "http://127.0.0.1:1", tmp_path, "--running")

    assert answer.exit_code == 0, answer.output
    assert answer.output.count(" holds  ") == len(command.RUNNING)
    assert "every invariant" not in answer.output  # six were looked at, not twelve
    assert "these 6 of 12 invariants hold" in answer.output
    assert {"I1", "I5"} <= set(command.RUNNING) < set(command.CHECKS)


def test_a_provider_that_is_away_is_one_line(world: World, tmp_path: Path) -> None:
    """Not a violation, not a stack trace: exit 7."""
    answer = _run(world, "http://127.0.0.1:1", tmp_path)

    assert answer.exit_code == 7
    assert answer.output.startswith("tidegate: the provider at http://127.0.0.1:1 does not answer")
    assert answer.output.count("\n") == 1
