"""The payment providers' own books, read to their end: what they took, and what they gave back."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from ops.errors import Unreachable

PAGE = 1000  # payments the sandbox is asked for at once
_STRIPE_PAGE = 100  # the most that Stripe gives
_STRIPE_URL = "https://api.stripe.com"
_STRIPE_VERSION = "2024-06-20"  # the API this is written to
# docs.stripe.com/currencies: amounts are in the smallest unit, which is not always a hundredth.
_WHOLE = frozenset({"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV"})
_WHOLE |= {"XAF", "XOF", "XPF"}
_THOUSANDTHS = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Capture:
    """Money a provider took, and gave back; amounts in cents."""

    payment_id: str
    order_id: str
    amount_cents: int
    refunded_cents: int
    currency: str = "EUR"
    provider: str = "sandbox"


@dataclass(frozen=True, slots=True)
class Books:
    """What providers say.

    Attributes:
        captures: their successes, each as often as it stands there.
        read: the providers whose books were read; of the others nothing is known.
    """

    captures: tuple[Capture, ...] = ()
    read: frozenset[str] = frozenset()


def read_books(environment: Mapping[str, str], timeout: float = 10.0) -> Books:
    """Read the books of every provider that the environment names.

    Args:
        environment: TIDEGATE_SANDBOX_URL and TIDEGATE_SANDBOX_SECRET, TIDEGATE_STRIPE_API_KEY and
            TIDEGATE_STRIPE_URL.
        timeout: seconds for one answer.

    Raises:
        Unreachable: one does not answer as expected.
    """
    captures: list[Capture] = []
    read = set()
    if url := environment.get("TIDEGATE_SANDBOX_URL"):
        captures += read_sandbox(url, environment.get("TIDEGATE_SANDBOX_SECRET"), timeout)
        read.add("sandbox")
    if key := environment.get("TIDEGATE_STRIPE_API_KEY"):
        captures += read_stripe(environment.get("TIDEGATE_STRIPE_URL") or _STRIPE_URL, key, timeout)
        read.add("stripe")
    return Books(tuple(captures), frozenset(read))


def read_sandbox(url: str, secret: str | None, timeout: float = 10.0) -> list[Capture]:
    """Read the sandbox's ledger to its end.

    Raises:
        Unreachable: it does not answer as expected.
    """
    captures: list[Capture] = []
    with _asking(url, secret, {}, timeout) as ask:
        since = 0
        while True:
            document = ask(f"/payments?since={since}&limit={PAGE}")
            captures += [_of_sandbox(row) for row in document["payments"] if row["outcome"] == "succeeded"]
            if not document["payments"]:
                return captures
            since = int(document["next"])


def read_stripe(url: str, key: str, timeout: float = 10.0) -> list[Capture]:
    """Read every PaymentIntent of this shop that succeeded; others' have no order in their metadata.

    Raises:
        Unreachable: Stripe does not answer as its reference says.
    """
    captures: list[Capture] = []
    with _asking(url, key, {"Stripe-Version": _STRIPE_VERSION}, timeout) as ask:
        after = ""
        while True:
            page = ask(
                f"/v1/payment_intents?limit={_STRIPE_PAGE}&expand%5B%5D=data.latest_charge"
                + (f"&starting_after={quote(after)}" if after else "")
            )
            captures += [
                _of_stripe(intent)
                for intent in page["data"]
                if intent["status"] == "succeeded" and (intent.get("metadata") or {}).get("order_id")
            ]
            if not page["has_more"]:
                return captures
            after = str(page["data"][-1]["id"])


class _Ask:
    """GETs JSON over one connection."""

    def __init__(self, connection: http.client.HTTPConnection, prefix: str, headers: dict[str, str]) -> None:
        self._connection, self._prefix, self._headers = connection, prefix, headers

    def __call__(self, path: str) -> Any:  # noqa: ANN401 - JSON
        self._connection.request("GET", self._prefix + path, headers=self._headers)
        answer = self._connection.getresponse()
        raw = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise _Refused(answer.status)
        return json.loads(raw)


class _Refused(Exception):  # noqa: N818 - an answer, told further as Unreachable
    """The provider's answer is not 200; the argument is its status."""


@contextlib.contextmanager
def _asking(url: str, secret: str | None, more: Mapping[str, str], timeout: float) -> Iterator[_Ask]:
    """A way to ask a provider; whatever goes wrong meanwhile is said in one line, without secrets."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {**more, **({"Authorization": f"Bearer {secret}"} if secret else {})}
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    try:
        yield _Ask(connection, parts.path.rstrip("/"), headers)
    except _Refused as error:
        raise Unreachable(f"the provider at {url} answered {error} when asked for its ledger") from error
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, IndexError) as error:
        raise Unreachable(
            f"the provider at {url} does not answer: {error or type(error).__name__}"
        ) from error
    finally:
        connection.close()


def _of_sandbox(row: Row) -> Capture:
    return Capture(
        str(row["id"]),
        str(row["order_id"]),
        int(row["amount_cents"]),
        int(row["refunded_cents"] or 0),
        str(row["currency"]),
    )


def _of_stripe(intent: Row) -> Capture:
    currency = str(intent["currency"]).upper()
    charge = intent.get("latest_charge") or {}
    return Capture(
        str(intent["id"]),
        str(intent["metadata"]["order_id"]),
        _cents(int(intent["amount_received"]), currency),
        _cents(int(charge.get("amount_refunded") or 0), currency),
        currency,
        "stripe",
    )


def _cents(units: int, currency: str) -> int:
    """What Stripe counts, as our hundredths."""
    if currency in _WHOLE:
        return units * 100
    return units // 10 if currency in _THOUSANDTHS else units
