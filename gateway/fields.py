"""Header lines read into fields: what clients and servers repeat is read twice, and then remembered.

Section numbers are those of RFC 9110.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from gateway.field import NOTABLE, Block, Field, is_plain
from gateway.generations import Generations, Seen

MAX_LINE: Final = 1024  # bytes; longer lines, mostly cookies, are read anew each time
HALF: Final = 2048  # lines remembered per generation
_NAMES: Final = 512  # names remembered, as they are spelt; beyond it all are forgotten
_MAX_NAME: Final = 64  # bytes; the same for these
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # 5.1
Pair = Any  # tuple[bytes, bytes]; under that name mypyc takes each apart and makes it anew wherever it goes
_CONTROLS: Final = bytes([*range(9), *range(10, 32), 127])  # in no value (5.5)


class Line:
    """One line, read.

    Attributes:
        field: its name in lower case, and its value; a Field if the line comes again and again.
        sent: the line as it is sent on, with its end.
        plain: as `is_plain` says of its name.
    """

    __slots__ = ("field", "plain", "sent")

    def __init__(self, field: Pair, sent: bytes, plain: bool) -> None:
        self.field = field
        self.sent = sent
        self.plain = plain


class Lines:
    """The lines of one header, read.

    Attributes:
        fields: all, in order.
        notable: those that are not plain.
        plain: the lines of the others as they are sent on.
    """

    __slots__ = ("fields", "notable", "plain")

    def __init__(self, fields: list[Pair], notable: list[Pair], plain: bytes) -> None:
        self.fields = fields
        self.notable = notable
        self.plain = plain


class _Name(NamedTuple):
    lower: bytes
    start: bytes  # of a line that is sent on
    plain: bool


class Fields:
    """Lines and what they mean, those that came twice remembered in bounded memory."""

    __slots__ = ("_known", "_names", "_seen")

    def __init__(self) -> None:
        self._known: Generations[bytes, Line] = Generations(HALF)
        self._names: dict[bytes, _Name] = {}
        self._seen = Seen(2 * HALF)

    def __len__(self) -> int:
        return len(self._known)

    def read(self, lines: list[bytes]) -> Lines | None:
        """These lines, given without their ends; None when one is not beyond doubt."""
        known = self._known
        fields: list[Pair] = []
        notable: list[Pair] = []
        plain: list[bytes] = []
        for place, line in enumerate(list(map(known.get, lines))):
            if line is None:
                line = known.find(lines[place]) or self._learn(lines[place])
                if line is None:
                    return None
            fields.append(line.field)
            if line.plain:
                plain.append(line.sent)
            else:
                notable.append(line.field)
        return Lines(fields, notable, b"".join(plain))

    def _learn(self, line: bytes) -> Line | None:
        given, colon, value = line.partition(b":")
        name = self._names.get(given) or self._learn_name(given)
        if name is None or not colon:
            return None
        value = value.strip(b" \t")
        if not (value.isascii() and value.decode("ascii").isprintable()) and value != value.translate(
            None, _CONTROLS
        ):
            return None
        lower, start, plain = name
        if len(line) <= MAX_LINE and self._seen.again(line):
            field = Field(lower, value)
            found = Line(field, field.line, plain)
            self._known.add(line, found)
            return found
        return Line((lower, value), b"%b%b\r\n" % (start, value), plain)

    def _learn_name(self, given: bytes) -> _Name | None:
        if _NAME.fullmatch(given) is None:
            return None
        lower = given.lower()
        name = _Name(lower, lower + b": ", is_plain(lower))
        if len(given) <= _MAX_NAME:
            if len(self._names) >= _NAMES:
                self._names.clear()
            self._names[given] = name
        return name


def values(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The values of the fields of this name, in lower case, as they came."""
    if type(headers) is Block and headers.plain is not None and name in NOTABLE:
        headers = headers.notable
    return [value for field, value in headers if field == name]
