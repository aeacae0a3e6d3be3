"""One header field, read once: clients and servers repeat most of their lines with every message.

Section numbers are those of RFC 9110.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from gateway.generations import Generations

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

MAX_LINE = 1024  # bytes; longer lines, mostly cookies, are read anew each time
HALF = 2048  # lines remembered per generation
MAX_BLOCK = 2048  # bytes; the same for headers as a whole
HALF_BLOCKS = 1024
# 5.1, 5.5. Blanks around a value are matched as part of it: else a line can be read in thousands of ways.
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)")


class Field(tuple[bytes, bytes]):
    """A field as headers hold it, name in lower case and value, with its line ready to be sent: one line.

    Attributes:
        line: `name: value` and the line's end.
        plain: neither its name nor a spelling of it that CGI takes for it is `NOTABLE`.
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
        self.plain = name.translate(AS_CGI) not in NOTABLE
        return self


class Block(tuple[Field, ...]):
    """Fields that came together and may come again: a header, or what of it is passed on.

    Never changes, so that whatever is made of it is made once.

    Attributes:
        passed: what whoever passes it on has made of it.
    """

    passed: Any = None

    @cached_property
    def counted_as(self) -> dict[bytes, str]:
        """Whom limits count by a field, by its name."""
        return {}

    @cached_property
    def by_name(self) -> dict[bytes, tuple[bytes, ...]]:
        """The values of each name."""
        found: dict[bytes, tuple[bytes, ...]] = {}
        for name, value in self:
            found[name] = (*found.get(name, ()), value)
        return found

    @cached_property
    def sent(self) -> tuple[bytes, int | None, bool]:
        """The lines of all, what Content-Length says of a body, in bytes, and whether there is a Date."""
        lengths = self.by_name.get(b"content-length")
        lines = b"".join([field.line for field in self])
        return lines, int(lengths[-1]) if lengths else None, b"date" in self.by_name


def values(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> Sequence[bytes]:
    """The values of the fields of this name, in lower case, as they came."""
    if type(headers) is Block:
        return headers.by_name.get(name, ())
    return [value for field, value in headers if field == name]


class Fields:
    """Field lines and what they mean, remembered in bounded memory."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: Generations[bytes, Field] = Generations(HALF)

    def __len__(self) -> int:
        return len(self._known)

    def read(self, lines: list[bytes]) -> list[Field] | None:
        """The fields of these lines, without their ends; None when one is not beyond doubt."""
        fields = list(map(self._known.get, lines))
        if None in fields:
            for place, field in enumerate(fields):
                if field is None:
                    learned = self._known.find(lines[place]) or self._learn(lines[place])
                    if learned is None:
                        return None
                    fields[place] = learned
        return fields  # type: ignore[return-value]  # no None is left in it

    def _learn(self, line: bytes) -> Field | None:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        field = Field(match[1].lower(), match[2].strip(b" \t"))
        if len(line) <= MAX_LINE:
            self._known.add(line, field)
        return field
