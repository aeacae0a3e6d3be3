"""Mail and text messages over real sockets: sent once, retried, given up visibly, slow for nobody else."""

from __future__ import annotations

import asyncio
import email
import email.policy
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shop_backend.errors import SetupError
from shop_backend.letters import LANGUAGES, Letters, Message
from shop_backend.mail import FileMailbox, SmtpMailer, compose
from shop_backend.notifications import Outbox, counts
from shop_backend.sections import OutboxSettings
from shop_backend.sms import SmsFiles, SmsWebhook
from tests.shop_backend.serving import serve
from tests.waiting import PATIENCE, until

SECRET = "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"


@dataclass
class PostOffice:
    """What an SMTP server does with its mails. `answers` are given first; some recipients are slow."""

    answers: list[str] = field(default_factory=list)
    slow: str = "nobody"
    taken: list[tuple[str, EmailMessage]] = field(default_factory=list)
    sessions: set[int] = field(default_factory=set)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    farewells: int = 0

    async def handle_QUIT(self, server: SMTP, _: Session, __: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        self.farewells += 1
        server.transport.abort()
        return "221 bye"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _: SMTP, session: Session, envelope: Envelope, address: str, __: list[str]
    ) -> str:
        self.sessions.add(id(session))
        if address.startswith("gone"):
            return "550 5.1.1 no such mailbox"
        if address.startswith(self.slow):
            await self.go.wait()
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        if self.answers:
            return self.answers.pop(0)
        assert isinstance(envelope.content, bytes)
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.taken.append((envelope.rcpt_tos[0], mail))
        return "250 taken"


@pytest.fixture
async def post() -> AsyncIterator[tuple[PostOffice, str]]:
    """A real SMTP server on this loop, and its URL."""
    office = PostOffice()
    controller = Controller(office)
    server = await asyncio.get_running_loop().create_server(controller.factory, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield office, f"smtp://127.0.0.1:{port}"
    server.close()


async def sold(
    shop: Any,
    quantity: int = 1,
    *,
    language: str = "en",
    phone: str = "",
    email: str = "buyer@example.com",
) -> str:
    """An order, paid and delivered; its id."""
    order = await shop.placed("plain", quantity)
    sql = "UPDATE orders SET language = %s, phone = %s, email = %s WHERE id = %s"
    await shop.execute(sql, language, phone, email, order["order_id"])
    await shop.callback(order, await shop.pay(order))
    await shop.drain()
    return str(order["order_id"])


def outbox(shop: Any, notifier: Any, settings: OutboxSettings | None = None, **more: Any) -> Outbox:
    """An outbox of this shop."""
    more.setdefault("link", lambda order: f"http://shop.test/orders/{order}?token=t")
    return Outbox(shop.parts.database, notifier, settings or shop.settings.outbox, **more)


async def again(shop: Any) -> None:
    """Let every waiting message be due."""
    await shop.execute("UPDATE outbox SET next_attempt_at = now() WHERE state = 'pending'")


# ---- mail ------------------------------------------------------------------------------------


async def test_a_mail_reaches_a_real_server(shop: Any, post: tuple[PostOffice, str]) -> None:
    """One mail for an order of three, in the buyer's language, with link and without key; sent once."""
    office, url = post
    mailer = SmtpMailer(url, "shop@tidegate.example", timeout=PATIENCE)
    english = await sold(shop, quantity=3)
    chinese = await sold(shop, language="zh")
    mails = outbox(shop, mailer)
    while await mails.send_due():
        pass
    assert await mails.send_due() == 0
    sent = {str(mail["Message-ID"]): mail for _, mail in office.taken}
    assert len(office.taken) == 2
    mail = sent[f"<{english}-delivered@tidegate.example>"]
    assert mail["Subject"] == "Your 3 keys for Plain"
    text = mail.get_content()
    assert f"http://shop.test/orders/{english}?token=t" in text
    assert "3 × Plain, €30.00" in text
    assert "CANARY" not in text
    mail = sent[f"<{chinese}-delivered@tidegate.example>"]
    assert mail["Subject"] == "您的 Plain 卡密已发货"
    assert f"/orders/{chinese}?token=t" in mail.get_content()
    assert await counts(shop.parts.database) == (0, 0)
    await mailer.close()


async def test_connections_are_used_again_and_replaced(post: tuple[PostOffice, str]) -> None:
    """Mails one after the other take one connection; one that was closed costs nothing but a new one."""
    office, url = post
    mailer = SmtpMailer(url, "shop@tidegate.example", timeout=PATIENCE)
    for number in range(3):
        await mailer.send("a@b.example", Message(f"r{number}", "s", "t"))
    assert (len(office.taken), len(office.sessions)) == (3, 1)
    office.answers = ["421 4.3.2 closing"]
    with pytest.raises(Exception, match="421"):
        await mailer.send("a@b.example", Message("r3", "s", "t"))
    await mailer.send("a@b.example", Message("r3", "s", "t"))
    # Closed behind our back while idle.
    (idle,) = mailer._idle
    assert idle.transport is not None
    idle.transport.abort()
    await mailer.send("a@b.example", Message("r4", "s", "t"))
    assert [mail["Message-ID"] for _, mail in office.taken][-1] == "<r4@tidegate.example>"
    await mailer.close()


@pytest.mark.parametrize("kept", [8, 12])
async def test_a_mail_that_was_taken_is_not_sent_again(post: tuple[PostOffice, str], kept: int) -> None:
    """More connections than are kept: the server hangs up on QUIT instead of answering, and nobody minds."""
    office, url = post
    mailer = SmtpMailer(url, "shop@tidegate.example", timeout=PATIENCE, kept=kept)
    office.slow = "a"  # all arrive before the first goes on
    sending = [
        asyncio.create_task(mailer.send("a@b.example", Message(f"r{number}", "s", "t")))
        for number in range(12)
    ]
    await until(lambda: len(office.sessions) == 12)
    office.go.set()
    await asyncio.gather(*sending)
    assert sorted(mail["Message-ID"] for _, mail in office.taken) == sorted(
        f"<r{number}@tidegate.example>" for number in range(12)
    )
    await until(lambda: office.farewells == max(0, 12 - kept))
    await mailer.close()


async def test_a_slow_recipient_slows_nobody(shop: Any, post: tuple[PostOffice, str]) -> None:
    """While the server keeps one mail waiting, all others go out, in later rounds too; at last that one."""
    office, url = post
    office.slow = "slow"
    mailer = SmtpMailer(url, "shop@tidegate.example", timeout=PATIENCE)
    mails = outbox(shop, mailer)
    await sold(shop, email="slow@b.example")
    for _ in range(2):
        await sold(shop)
        async with asyncio.timeout(PATIENCE):
            while not office.taken or await counts(shop.parts.database) != (1, 0):
                await mails.keep_sending()
    assert [to for to, _ in office.taken] == ["buyer@example.com"] * 2
    # Another worker does not send what is being sent.
    assert await outbox(shop, FailingMailbox()).send_due() == 0
    office.go.set()
    while await counts(shop.parts.database) != (0, 0):
        await mails.keep_sending()
    assert office.taken[-1][0] == "slow@b.example"
    await mailer.close()


class FailingMailbox:
    """Takes nothing."""

    async def send(self, to: str, message: Message) -> None:
        raise AssertionError(f"{to} {message.reference}")


async def test_refused_for_good_is_given_up_at_once(shop: Any, post: tuple[PostOffice, str]) -> None:
    """A mailbox that is not there is not tried for hours; what the server can't do now is tried again."""
    office, url = post
    mailer = SmtpMailer(url, "shop@tidegate.example", timeout=PATIENCE)
    mails = outbox(shop, mailer)
    await sold(shop, email="gone@b.example")
    office.answers = ["451 4.3.0 later", "554 5.7.1 spam"]
    await mails.send_due()
    row = await shop.row("SELECT * FROM outbox")
    assert (row["state"], row["attempts"]) == ("dead", 1)
    assert "550" in row["error"]
    await sold(shop)
    await mails.send_due()
    row = await shop.row("SELECT state, error FROM outbox WHERE state <> 'dead'")
    assert (row["state"], "451" in row["error"]) == ("pending", True)
    await again(shop)
    await mails.send_due()
    assert await counts(shop.parts.database) == (0, 2)
    assert office.taken == []


async def test_a_server_that_is_away_costs_tries(shop: Any, free_port: Callable[[], int]) -> None:
    """Nobody listens: each try is noted, the pause grows, the message waits."""
    mailer = SmtpMailer(f"smtp://127.0.0.1:{free_port()}", "a@b.example", timeout=PATIENCE)
    backoff = 1000.0  # seconds; so long that those which pass meanwhile don't matter
    mails = outbox(shop, mailer, settings=OutboxSettings(backoff=backoff, longest=10 * backoff))
    await sold(shop)
    waits = []
    for _ in range(4):
        await again(shop)
        await mails.send_due()
        row = await shop.row(
            "SELECT state, attempts, extract(epoch FROM next_attempt_at - now())::float8 AS wait FROM outbox"
        )
        assert row["state"] == "pending"
        waits.append(row["wait"])
    for number, wait in enumerate(waits):
        assert 0.4 * backoff * 2**number < wait <= backoff * 2**number


async def test_mail_is_retried_then_given_up(shop: Any) -> None:
    """A mail server that is away costs tries, not shoppers; in the end the row says why."""
    order = await shop.placed()
    await shop.callback(order, await shop.pay(order))
    await shop.drain()
    shop.mailbox.failures = 2
    for _ in range(3):
        await shop.execute("UPDATE outbox SET next_attempt_at = now() WHERE state = 'pending'")
        await shop.outbox.send_due()
    assert [to for to, _ in shop.mailbox.sent] == ["buyer@example.com"]
    assert (await shop.row("SELECT * FROM outbox"))["state"] == "sent"
    order = await shop.placed()
    await shop.callback(order, await shop.pay(order))
    await shop.drain()
    shop.mailbox.failures = 10**6
    for _ in range(shop.settings.outbox.attempts):
        await shop.execute("UPDATE outbox SET next_attempt_at = now() WHERE state = 'pending'")
        await shop.outbox.send_due()
    dead = await shop.row("SELECT * FROM outbox WHERE state = 'dead'")
    assert "mail server away" in dead["error"]
    assert await counts(shop.parts.database) == (0, 1)


def command(shop: Any, *words: str) -> str:
    """What `python -m shop_backend WORDS` prints."""
    env = {**os.environ, "TIDEGATE_DATABASE_URL": shop.settings.require("database_url")}
    done = subprocess.run(
        [sys.executable, "-m", "shop_backend", *words], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout


async def test_what_was_given_up_is_shown_and_sent_again(shop: Any) -> None:
    """`outbox` names each message with its reason, `--retry` lets it go out after all."""
    await sold(shop, quantity=2)
    await shop.execute("UPDATE outbox SET state = 'dead', error = 'mail server away', attempts = 20")
    shown = await asyncio.to_thread(command, shop, "outbox")
    assert "to buyer@example.com: mail server away" in shown
    assert shown.endswith("0 waiting, 1 given up\n")
    assert (await asyncio.to_thread(command, shop, "outbox", "--retry")).endswith("2 waiting, 0 given up\n")
    await shop.outbox.send_due()
    assert len(shop.mailbox.sent) == 1


async def test_two_workers_never_send_the_same(shop: Any) -> None:
    """Both claim at the same time: every message goes out once, an order's rows always together."""
    for _ in range(6):
        await sold(shop, quantity=2)
    first, second = outbox(shop, shop.mailbox), outbox(shop, shop.mailbox)
    await asyncio.gather(*(each.send_due() for each in (first, second)))
    await asyncio.gather(*(each.send_due() for each in (first, second)))
    references = [message.reference for _, message in shop.mailbox.sent]
    assert len(references) == len(set(references)) == 6
    assert all("2 keys" in message.subject for _, message in shop.mailbox.sent)


async def test_a_refund_is_told(shop: Any) -> None:
    """A second capture goes back, and the buyer hears of it, once, with its amount."""
    order = await shop.placed()
    payment = await shop.pay(order)
    await shop.callback(order, payment)
    for _ in range(2):
        await shop.callback(order, payment, payment_id="pay/../2")
        await shop.drain()
    while await shop.outbox.send_due():
        pass
    subjects = [message.subject for _, message in shop.mailbox.sent]
    assert sorted(subjects) == ["Your key for Plain", "Your payment for Plain is on its way back"]
    assert all("/" not in message.reference for _, message in shop.mailbox.sent)
    assert "€10.00" in shop.mailbox.sent[subjects.index("Your payment for Plain is on its way back")][1].text


async def test_mails_become_files_by_default(tmp_path: Any) -> None:
    """The same reference again replaces the file; only its owner reads it."""
    box = FileMailbox(tmp_path / "mail", "a@b.example")
    for text in ("one", "two"):
        await box.send("c@d.example", Message("r", "s", text))
    (file,) = (tmp_path / "mail").iterdir()
    assert "two" in file.read_text()
    texts = SmsFiles(tmp_path / "sms")
    await texts.send("+49", Message("r", "", "hello"))
    assert (tmp_path / "sms" / "r.txt").read_text() == "To: +49\n\nhello"


@pytest.mark.parametrize(
    "url", ["", "mail.example", "http://x", "smtp://", "smtp://x:y", "smtp://a:SECRET@:1"]
)
def test_a_malformed_address_is_a_clear_error(url: str) -> None:
    """The message names the variable and shows no password."""
    with pytest.raises(SetupError, match="TIDEGATE_SMTP_URL") as raised:
        SmtpMailer(url, "a@b.example", timeout=1.0)
    assert "SECRET" not in str(raised.value)


# ---- text messages ---------------------------------------------------------------------------


@dataclass
class Gateway:
    """The receiver of a webhook: answers with `statuses`, then 200; keeps what verifies."""

    statuses: list[int] = field(default_factory=list)
    taken: list[dict[str, str]] = field(default_factory=list)

    async def receive(self, request: Request) -> Response:
        body = await request.body()
        status = self.statuses.pop(0) if self.statuses else 200
        verified: Any = Webhook(SECRET).verify(body, dict(request.headers))
        if status == 200:
            self.taken.append(verified)
        return Response(status_code=status)


async def test_text_messages_go_to_a_signed_webhook(shop: Any) -> None:
    """To whoever left a number, once per order, short; 5xx is tried again, 4xx is given up."""
    gateway = Gateway(statuses=[503, 200, 400])
    app = Starlette(routes=[Route("/sms", gateway.receive, methods=["POST"])])
    async with serve(app) as url:
        hook = SmsWebhook(f"{url}/sms", SECRET, timeout=PATIENCE)
        texts = outbox(shop, hook, channel="sms")
        order = await sold(shop, quantity=2, phone="+4930123456")
        await sold(shop)
        for _ in range(2):
            await texts.send_due()
            await again(shop)
        link = f"http://shop.test/orders/{order}?token=t"
        assert gateway.taken == [
            {
                "to": "+4930123456",
                "text": f"Your 2 keys for Plain are ready: {link}",
                "reference": f"{order}-delivered",
            }
        ]
        await sold(shop, phone="+1")
        await texts.send_due()
        row = await shop.row("SELECT state, error FROM outbox WHERE channel = 'sms' AND recipient = '+1'")
        assert row == {"state": "dead", "error": "Undeliverable: HTTP 400"}
        await hook.close()
    # Its mails are another channel's business.
    assert await counts(shop.parts.database) == (4, 1)
    await shop.check()


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!!SECRETSECRET"])
def test_texts_are_never_sent_unsigned(secret: str) -> None:
    """Without a good secret the worker does not start, and says which variable is wrong."""
    with pytest.raises(SetupError, match="TIDEGATE_SMS_SECRET") as raised:
        SmsWebhook("http://x", secret, timeout=1.0)
    assert "SECRETSECRET" not in str(raised.value)


# ---- letters ---------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)


@given(
    product=TEXT,
    quantity=st.integers(1, 1000),
    occasion=st.sampled_from(["delivered", "refunding"]),
    language=st.sampled_from([*LANGUAGES, "fr", ""]),
    channel=st.sampled_from(["mail", "sms"]),
)
def test_letters_are_whole_in_every_language(
    product: str, quantity: int, occasion: str, language: str, channel: str
) -> None:
    """Whatever a product is called, a letter has its link and fits into a mail; the others read English."""
    values = {
        "order_id": "o",
        "product": product,
        "quantity": quantity,
        "amount": "€1.00",
        "link": "http://l/",
    }
    message = LETTERS.write(occasion, language, channel, reference="r", values=values)
    assert "http://l/" in message.text
    assert "{" not in message.text.replace(product, "")
    assert (message.subject == "") == (channel == "sms")
    if channel == "mail":
        mail = bytes(compose("a@b.example", "c@d.example", message))
        assert email.message_from_bytes(mail, policy=email.policy.default)["Message-ID"] == "<r@b.example>"
    if language not in LANGUAGES:
        assert message == LETTERS.write(occasion, "en", channel, reference="r", values=values)


LETTERS = Letters()
