"""Mail: to an SMTP server, or without one to files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from base64 import encodebytes
from datetime import UTC, datetime
from email.header import Header
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiosmtplib

from shop_backend.errors import SetupError
from shop_backend.letters import Message
from shop_backend.notifications import Undeliverable

_LINE = 998  # characters of a line, RFC 5322, 2.1.1
_SUBJECT = 68  # characters that need no folding
_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


def compose(sender: str, to: str, message: Message) -> bytes:
    """The mail as it goes out.

    Written here rather than by `email.message`, which takes longer over one mail than all else that an order
    costs the worker. Both addresses are plain ASCII, as config.py and requests.py see to it.
    """
    if message.text.isascii() and all(len(line) <= _LINE for line in message.text.splitlines()):
        encoding, text = "7bit", "\r\n".join(message.text.splitlines()) + "\r\n"
    else:
        encoding, text = "base64", encodebytes(message.text.encode()).decode().replace("\n", "\r\n")
    fields = (
        ("From", sender),
        ("To", _one_line(to)),
        ("Date", format_datetime(datetime.now(UTC))),
        ("Message-ID", f"<{message.reference}@{sender.rpartition('@')[2]}>"),
        ("Auto-Submitted", "auto-generated"),  # RFC 3834: vacation replies to a shop help nobody
        ("Subject", _subject(message.subject)),
        ("MIME-Version", "1.0"),
        ("Content-Type", 'text/plain; charset="utf-8"'),
        ("Content-Transfer-Encoding", encoding),
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"{head}\r\n{text}".encode()


def _subject(text: str) -> str:
    text = _one_line(text)
    if text.isascii() and len(text) <= _SUBJECT and "=?" not in text:
        return text
    return Header(text, "utf-8", header_name="Subject").encode(linesep="\r\n")  # words of RFC 2047, folded


def _one_line(value: str) -> str:
    """Without ends of lines, after which another field would begin, and other control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())


class SmtpMailer:
    """Hands mails to an SMTP server, over connections that are used again.

    Args:
        url: `smtp://`, `smtp+starttls://` (refuses to go on without) or `smtps://`, then
            `[user:password@]host[:port]`. With `smtp://` STARTTLS is used when the server offers it.
        sender: the From address.
        timeout: seconds for each step.
        kept: connections that wait for the next mail; with fewer than are used at once, each mail of a rush
            would pay for opening one.

    Raises:
        SetupError: the URL is malformed; it is not shown.
    """

    def __init__(
        self, url: str, sender: str, *, timeout: float, kept: int = 8, tls: ssl.SSLContext | None = None
    ) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            port = 0
        if not port or not parts.hostname:
            raise SetupError("TIDEGATE_SMTP_URL: must be smtp://, smtp+starttls:// or smtps:// and a host")
        self._host, self._port, self._scheme = parts.hostname, port, parts.scheme
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._sender = sender
        self._timeout = timeout
        self._kept = kept
        self._tls = tls
        self._idle: list[aiosmtplib.SMTP] = []

    async def send(self, to: str, message: Message) -> None:
        """Hand one over.

        Raises:
            Undeliverable: the server refuses this recipient, or this mail, for good (5xx).
            aiosmtplib.SMTPException, OSError: not now.
        """
        mail = compose(self._sender, to, message)
        while self._idle:
            # Servers close what was idle for long: then the next one is tried, at last a new one.
            try:
                await self._hand_over(self._idle.pop(), to, mail)
            except aiosmtplib.SMTPServerDisconnected:
                continue
            return
        client = self._client()
        await client.connect()
        await self._hand_over(client, to, mail)

    async def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    def _client(self) -> aiosmtplib.SMTP:
        start_tls = {"smtp": None, "smtp+starttls": True, "smtps": False}[self._scheme]
        return aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            username=self._user,
            password=self._password,
            timeout=self._timeout,
            use_tls=self._scheme == "smtps",
            start_tls=start_tls,
            tls_context=self._tls,
        )

    async def _hand_over(self, client: aiosmtplib.SMTP, to: str, mail: bytes) -> None:
        try:
            await client.sendmail(self._sender, to, mail)
        except BaseException as error:
            client.close()  # who knows in the middle of what
            if (why := _for_good(error)) is not None:
                raise Undeliverable(why) from error
            raise
        if len(self._idle) < self._kept:
            self._idle.append(client)
            return
        # The mail is taken; what goes wrong with a farewell must not send it again.
        with contextlib.suppress(aiosmtplib.SMTPException, OSError):
            await client.quit()
        client.close()


def _for_good(error: BaseException) -> str | None:
    """What a server says that refuses a recipient or a text with 5xx; a refused sender is our mistake."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        first = error.recipients[0]
        return f"{first.code} {first.message}" if all(each.code >= 500 for each in error.recipients) else None
    if isinstance(error, aiosmtplib.SMTPRecipientRefused | aiosmtplib.SMTPDataError) and error.code >= 500:
        return f"{error.code} {error.message}"
    return None


class FileMailbox:
    """Writes each mail to a file of its own: what a developer reads, and a rehearsal counts."""

    def __init__(self, folder: Path, sender: str) -> None:
        self._folder = folder
        self._sender = sender

    async def send(self, to: str, message: Message) -> None:
        """Write the mail; the same reference again replaces it.

        Raises:
            OSError: it can't be written.
        """
        content = compose(self._sender, to, message)
        await asyncio.to_thread(write_whole, self._folder / f"{message.reference}.eml", content)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that nobody sees half of, and nobody else reads.

    Raises:
        OSError: it can't be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
