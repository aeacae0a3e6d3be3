"""A header field as it is kept, and fields that came together.

Section numbers are those of RFC 9110.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Meant for one hop only (7.6.1).
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

# Fields in which the gateway vouches for something; from a client they are worth nothing.
OURS = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-real-ip",
        b"x-request-id",
        b"tidegate-deadline",
        b"tidegate-degraded",
        b"tidegate-user",
    }
)

# What CGI makes of a name: some servers take any sign for a dash, not only `_`.
AS_CGI = bytes.maketrans(b"!#$%&'*+.^_`|~", b"-" * 14)

# Whoever frames, forwards or answers looks at these; all others go through as they came.
NOTABLE = (
    HOP_BY_HOP
    | OURS
    | {
        b"content-length",
        b"date",
        b"expect",
        b"host",
        b"http2-settings",
        b"proxy-authorization",
        b"tidegate-shut",
        b"traceparent",
        b"tracestate",
    }
)

# A byte is looked for by its number: looked for as bytes, it costs CPython an exception.
LF = ord("\n")
CR = ord("\r")

MAX_BLOCK = 2048  # bytes; longer headers are read anew each time
HALF_BLOCKS = 1024  # headers remembered per generation


def is_plain(name: bytes) -> bool:
    """Whether neither this name, in lower case, nor a spelling of it that CGI takes for it is `NOTABLE`."""
    return name.translate(AS_CGI) not in NOTABLE


class Field(tuple[bytes, bytes]):
    """A field as headers hold it, name in lower case and value, with its line ready to be sent: one line.

    Attributes:
        line: `name: value` and the line's end.
        plain: as `is_plain` says of its name.
    """

    line: bytes
    plain: bool

    def __new__(cls, name: bytes, value: bytes) -> Field:
        """The field of this name, in lower case.

        Raises:
            ValueError: it would break out of its line.
        """
        self = super().__new__(cls, (name, value))
        self.line = line = b"%b: %b\r\n" % (name, value)
        if line.count(b"\n") != 1 or line.count(b"\r") != 1:
            raise ValueError("a header field holds a line break")
        self.plain = is_plain(name)
        return self


class Block(tuple[tuple[bytes, bytes], ...]):
    """Fields that came together and may come again: a header, or what of it is passed on.

    Never changes, so that whatever is made of it is made once.

    Attributes:
        plain: the lines of all that are not notable, as they are sent on; None when nobody put them together.
        notable: the others.
        passed: what whoever passes it on has made of it.
        counted_as: whom limits count by a field, by its name.
        reader: of a request, the language of the browser on its way to a page that it is from, or empty; None
            when nobody asked.
        sent: of an answer, the lines of all, what Content-Length says of a body, in bytes, and whether there
            is a Date.
    """

    plain: bytes | None = None
    notable: Sequence[tuple[bytes, bytes]] = ()
    passed: Any = None
    counted_as: dict[bytes, str] | None = None
    reader: str | None = None
    sent: tuple[bytes, int | None, bool] | None = None
