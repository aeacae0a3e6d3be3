"""How a line of the tables is written: bytes, the section that judges them, the verdict, and who gives it."""

from __future__ import annotations

from dataclasses import dataclass

HOST = b"Host: shop.example"
CHUNKED = b"Transfer-Encoding: chunked"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Refused:
    """One answer with this status, then the connection ends; the upstream gets nothing whole."""

    status: int


@dataclass(frozen=True)
class Passed:
    """The upstream gets exactly these bodies, one request each, and the connection stays in step.

    Attributes:
        bodies: of the requests, in order.
        target: of the first.
        fields: which the first must have; absent: names that it must not have.
        close: the gateway ends the connection after the last answer.
    """

    bodies: tuple[bytes, ...] = (b"",)
    target: bytes | None = None
    fields: tuple[tuple[bytes, bytes], ...] = ()
    absent: tuple[bytes, ...] = ()
    close: bool = False
    status: int = 200


@dataclass(frozen=True)
class Waits:
    """More must come; when the client ends it there, the upstream has got nothing."""


@dataclass(frozen=True)
class Case:
    """A line of a table.

    Attributes:
        name: as Http11Probe or h1spec name it, or ours in lower case.
        section: of RFC 9112, unless it begins with another RFC's number.
        by: who decides: llhttp as configured here (`parser`), our connection class in place of uvicorn's
            (`connection`), the guard, the forwarding, or nobody but the upstream.
    """

    name: str
    section: str
    by: str
    request: bytes
    verdict: Refused | Passed | Waits


BAD = Refused(400)
OK = Passed()
FIVE = Passed((b"hello",))


def get(
    *fields: bytes,
    target: bytes = b"/",
    method: bytes = b"GET",
    version: bytes = b"HTTP/1.1",
    host: bytes | None = HOST,
    body: bytes = b"",
) -> bytes:
    lines = [b"%b %b %b" % (method, target, version), *([host] if host is not None else []), *fields]
    return b"\r\n".join([*lines, b"", body])


def post(*fields: bytes, body: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    return get(*fields, method=b"POST", body=body, version=version)


def chunks(body: bytes, *fields: bytes) -> bytes:
    return post(CHUNKED, *fields, body=body)
