"""Ordering: the stock script answers, a worker writes the row later; and reading one's order."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import psycopg
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shop_backend import deadline, own_orders, tracing
from shop_backend.batcher import Batcher
from shop_backend.contact import language_of
from shop_backend.delivery import SealedCard, sealed_cards_of
from shop_backend.errors import NotFound, SoldOut, Unavailable, Unprocessable, problem
from shop_backend.letters import Language
from shop_backend.metrics import COPIES, ORDERS
from shop_backend.moments import from_ms, iso
from shop_backend.requests import Body, Email, Phone, Sku, client_network, idempotency_key, parse, read
from shop_backend.restock import current_epoch, fingerprint
from shop_backend.sessions import Bearer
from shop_backend.stock.order_ids import minute_of
from shop_backend.stock.records import Hold, Intent, StockClosed
from shop_backend.stock.second_copy import SecondCopy
from shop_backend.storage.database import Connection

if TYPE_CHECKING:
    from shop_backend.context import Context  # wiring; nothing here needs it at run time

_log = logging.getLogger(__name__)

_EPOCH_PAUSE = 0.1  # seconds between two questions for the epoch, while it is refused
# Seconds for which the gateway may tell others "sold out" by itself. Short: an unpaid order that expires
# makes room, and a buyer who repeats an accepted order shall soon hear of it again.
_SHUT_FOR = 2
_LOOK_EVERY = 0.02  # seconds; a page that waits for its order looks every half second at most
_FINAL = frozenset({"delivered", "refunded"})  # states that nothing follows
_MARGIN = 5  # minutes in which a payment of the last moment is settled, and clocks may differ
_NO_STORE = {"cache-control": "no-store"}
_HOLD_STATUS = {"held": "reserved", "confirmed": "paid", "released": "expired", "expired": "expired"}


class OrderBody(Body):
    """`POST /api/orders`."""

    sku: Sku
    quantity: Annotated[int, Field(ge=1, le=1000)]
    email: Email
    language: Language | None = None
    phone: Phone | None = None


class Orders:
    """Takes orders and shows them to whom they belong."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._copies = SecondCopy(context.redis_volatile, context.database)
        self._looks: Batcher[str, Seen | None] = Batcher(self._look, reads=True, every=_LOOK_EVERY)
        self._epoch_asked_at = float("-inf")
        self._epoch_lock = asyncio.Lock()

    async def place(
        self, bearer: Bearer, key: str, body: OrderBody, *, address: str = "", accept_language: str = ""
    ) -> Hold:
        """Reserve stock; the same user and key get the same order.

        `address` is the client's network, "" when it can't be told from others'. What the body does not say
        about reaching the buyer the session does, and after it Accept-Language.

        Raises:
            ShopError: see `StockLedger.reserve`; also NotFound and Unprocessable for the body.
        """
        c = self._context
        product = await c.catalog.product(body.sku)
        if product is None:
            raise NotFound("there is no such product; GET /api/products lists them")
        if body.quantity > c.settings.stock.max_quantity:
            raise Unprocessable(f"quantity: at most {c.settings.stock.max_quantity} in one order")
        phone = body.phone
        if phone is None:
            phone = (await c.sessions.recall(bearer.user)).get("phone", "") if bearer.has_phone else ""
        intent = Intent(
            seed=c.tokens.order_seed(bearer.user, key),
            sku=body.sku,
            user=bearer.user,
            quantity=body.quantity,
            email=body.email,
            unit_cents=product.price_cents,
            currency=product.currency,
            language=body.language or bearer.language or language_of(accept_language),
            phone=phone,
            # Of what was sent, not of what it came to: a session's number may change between two tries.
            body=fingerprint(body.sku, body.quantity, body.email, body.language, body.phone),
            origin=c.tokens.origin(address) if address else "",
            trace=tracing.current(),
        )
        deadline.check("stock")  # else it holds what nobody hears of
        epoch, mark = c.stock.epoch, c.stock.mark
        try:
            hold = await c.stock.reserve(intent)
        except StockClosed:
            # Perhaps the stock was loaded under an epoch we have not heard of yet.
            await self._learn_epoch(epoch)
            if c.stock.epoch == epoch:
                raise
            mark = c.stock.mark
            hold = await c.stock.reserve(intent)
        # Also for an order that was there already: who took it may have died before this line.
        COPIES.labels(await self._copies.keep(intent, hold, mark)).inc()
        return hold

    async def show(self, order_id: str, user: str | None, token: str) -> dict[str, Any]:
        """An order as its owner sees it, keys included once delivered.

        Raises:
            NotFound: there is none, or it is someone else's.
            Unavailable: SQL or Redis is away.
        """
        try:
            order_id = str(uuid.UUID(order_id))
        except ValueError:
            raise _no_order() from None
        by_token = self._context.tokens.opens(order_id, token)
        if not by_token and user is None:
            raise _no_order()
        owner = None if by_token else user
        try:
            seen = await self._seen(order_id)
        except psycopg.Error as error:
            raise Unavailable("orders can't be read just now; try again", retry_after=1) from error
        if seen is None:
            return await self._reserved(order_id, owner)
        row = seen.row
        if owner is not None and row["user_id"] != owner:
            raise _no_order()
        answer = {
            "order_id": order_id,
            "status": row["state"],
            "sku": row["sku"],
            "name": await self._context.catalog.name(row["sku"]),
            "quantity": row["quantity"],
            "amount_cents": row["amount_cents"],
            "currency": row["currency"],
            "expires_at": iso(row["expires_at"]),
        }
        if row["state"] == "pending" and row["pay_url"]:
            answer["pay_url"] = row["pay_url"]
        if row["state"] == "delivered":
            answer["cards"] = [self._context.vault.open_card(*card) for card in seen.cards]
        return answer

    async def _seen(self, order_id: str) -> Seen | None:
        if self._is_settled(order_id):
            # What an old order came to stays: a replica may say it, but only that.
            async with self._context.database.read() as connection:
                (found,) = await look(connection, [order_id])
            if found is not None and found.row["state"] in _FINAL:
                return found
        async with deadline.bounded("database"):
            return await self._looks.ask(order_id)

    async def _look(self, order_ids: Sequence[str]) -> list[Seen | None]:
        # The primary: a buyer reads own writes, however far a replica is behind.
        async with self._context.database.latest() as connection:
            return await look(connection, order_ids)

    def _is_settled(self, order_id: str) -> bool:
        """Whether the order is so old that it was paid or has expired; by the minute in its id."""
        settings = self._context.settings
        minutes = settings.stock.hold_for / 60 + _MARGIN
        age = (int(time.time() // 60) - minute_of(order_id)) % 65_536
        return settings.replica_url is not None and minutes < age < 65_536 - _MARGIN

    async def _reserved(self, order_id: str, user: str | None) -> dict[str, Any]:
        hold = await self._context.stock.hold(order_id) or await self._given_up(order_id)
        if hold is None or (user is not None and hold["user"] != user):
            raise _no_order()
        return {
            "order_id": order_id,
            "status": _HOLD_STATUS[hold["state"]],
            "sku": hold["sku"],
            "name": await self._context.catalog.name(hold["sku"]),
            "quantity": int(hold["quantity"]),
            "expires_at": from_ms(int(hold["expires_ms"])),
        }

    async def _given_up(self, order_id: str) -> dict[str, str] | None:
        """The hold of a dead-lettered order that Redis forgot."""
        try:
            async with self._context.database.primary() as connection:
                cursor = await connection.execute(
                    "SELECT fields FROM dead_letters WHERE order_id = %s AND fields ? 'round' LIMIT 1",
                    (order_id,),
                )
                row = await cursor.fetchone()
        except psycopg.Error as error:
            raise Unavailable("orders can't be read just now; try again", retry_after=1) from error
        return None if row is None else {**row["fields"], "state": "expired"}

    async def _learn_epoch(self, refused: int) -> None:
        """Ask SQL, one for all who were refused, and not too often."""
        async with self._epoch_lock:
            known = self._context.stock.epoch != refused
            if not known and time.monotonic() - self._epoch_asked_at > _EPOCH_PAUSE:
                self._epoch_asked_at = time.monotonic()
                try:
                    self._context.stock.epoch = await current_epoch(self._context.database)
                except psycopg.Error as error:
                    _log.warning("the stock's epoch can't be read: %s", type(error).__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """An order's row, and its cards, sealed, once delivered."""

    row: Mapping[str, Any]
    cards: Sequence[SealedCard]


async def look(connection: Connection, order_ids: Sequence[str]) -> list[Seen | None]:
    """Orders as they stand; None for those that have no row."""
    cursor = await connection.execute(
        "SELECT id::text, user_id, state, sku, quantity, amount_cents, currency, expires_at, pay_url"
        " FROM orders WHERE id = ANY(%s::uuid[])",
        (list(order_ids),),
    )
    rows = {row["id"]: row for row in await cursor.fetchall()}
    delivered = [order_id for order_id, row in rows.items() if row["state"] == "delivered"]
    cards = await sealed_cards_of(connection, delivered) if delivered else {}
    return [
        Seen(rows[order_id], cards.get(order_id, ())) if order_id in rows else None for order_id in order_ids
    ]


# ---- the API ---------------------------------------------------------------------------------


def routes(context: Context) -> list[Route]:
    """POST and GET /api/orders, and GET /api/orders/{id}."""
    orders = Orders(context)

    async def place(request: Request) -> Response:
        bearer = context.sessions.require_bearer(request)
        key = idempotency_key(request)
        body = parse(OrderBody, await read(request, context.settings.max_body))
        accept = ",".join(request.headers.getlist("accept-language"))
        try:
            hold = await orders.place(
                bearer, key, body, address=client_network(request), accept_language=accept
            )
        except SoldOut as sold_out:
            answer = problem(sold_out)
            if not sold_out.extra.get("left"):  # else fewer may still be had
                answer.headers["tidegate-shut"] = f"sku={body.sku}; for={_SHUT_FOR}"
            return answer
        if hold.new:
            ORDERS.labels("reserved").inc()
        where = f"/api/orders/{hold.order_id}"
        accepted = {
            "order_id": hold.order_id,
            "token": context.tokens.order_token(hold.order_id),
            "status": "reserved",
            "expires_at": from_ms(hold.expires_ms),
            "status_url": where,
        }
        return JSONResponse(accepted, 202, _NO_STORE | {"location": where})

    async def place_or_list(request: Request) -> Response:
        return await (place(request) if request.method == "POST" else own_orders.answer(context, request))

    async def show(request: Request) -> Response:
        answer = await orders.show(
            request.path_params["id"],
            context.sessions.user(request),
            request.query_params.get("token", ""),
        )
        return JSONResponse(answer, headers=_NO_STORE)

    return [
        Route("/api/orders", place_or_list, methods=["GET", "POST"]),
        Route("/api/orders/{id}", show, methods=["GET"]),
    ]


def _no_order() -> NotFound:
    return NotFound("there is no such order, or it is not yours: send its session or its token")
