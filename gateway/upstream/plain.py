"""The header of a plain answer, read at a fraction of the parser's price.

Plain is what nearly every server says nearly always: HTTP/1.1, a final status that has a body, one
Content-Length. All else is left to the parser, which has the last word: what is read here it would have read
alike (tests/gateway/upstream/test_plain.py). Section numbers are those of RFC 9112.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from gateway.field import HALF_BLOCKS, HOP_BY_HOP, MAX_BLOCK, Block
from gateway.fields import Fields, Pair
from gateway.generations import Generations, Seen

MAX_HEAD: Final = 16 << 10  # bytes
MAX_FIELDS: Final = 100
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2})(?: [\t -~\x80-\xff]*)?")
_END: Final = b"\r\n\r\n"
_STATUSES: Final = 256  # status lines remembered; a server has few


class AnswerHead(NamedTuple):
    """What a plain header says.

    Attributes:
        end: where the body begins.
        status: as answered.
        fields: those that are passed on.
        length: bytes of the body.
        keep_alive: the connection lives on.
    """

    end: int
    status: int
    fields: Block
    length: int
    keep_alive: bool


_statuses: dict[bytes, int] = {}
_fields: Final = Fields()
_heads: Generations[bytes, AnswerHead] = Generations(HALF_BLOCKS)
_seen: Final = Seen(2 * HALF_BLOCKS)


def read_head(data: bytes) -> AnswerHead | None:
    """The header that these bytes begin with; None when it is not whole, or not plain."""
    end = data.find(_END, 0, MAX_HEAD)
    if end < 0:
        return None
    head = data[:end]
    return _heads.get(head) or _heads.find(head) or _read(head)


def _read(head: bytes) -> AnswerHead | None:
    lines = head.split(b"\r\n")
    count = len(lines) - 1
    # A bare line break is nobody's to interpret (2.2).
    if count > MAX_FIELDS or head.count(b"\n") != count or head.count(b"\r") != count:
        return None
    first = lines.pop(0)
    status = _statuses.get(first) or _learn(first)
    if status is None:
        return None
    read = _fields.read(lines)
    if read is None:
        return None
    length = None
    keep_alive = True
    dated = False
    kept: list[Pair] = []
    dropped: list[Pair] = []
    for field in read.notable:
        name, value = field
        if name == b"content-length":
            if length is not None or not value.isdigit() or len(value) > 15:
                return None
            length = field
        elif name == b"connection":
            if value in {b"close", b"Close"}:
                keep_alive = False
            elif value not in {b"keep-alive", b"Keep-Alive"}:
                return None
            dropped.append(field)
        elif name in HOP_BY_HOP:
            if name != b"keep-alive":
                return None
            dropped.append(field)
        elif name == b"x-request-id":
            dropped.append(field)  # ours, as told to the upstream; one that echoes it says nothing new
        else:
            dated = dated or name == b"date"
            kept.append(field)
    if length is None:
        return None
    kept.append(length)
    fields = Block([field for field in read.fields if field not in dropped] if dropped else read.fields)
    fields.plain, fields.notable = read.plain, kept
    size = int(length[1])
    fields.sent = read.plain + b"".join([b"%b: %b\r\n" % field for field in kept]), size, dated
    answer = AnswerHead(len(head) + len(_END), status, fields, size, keep_alive)
    if len(head) <= MAX_BLOCK and _seen.again(head):
        _heads.add(head, answer)
    return answer


def _learn(first: bytes) -> int | None:
    match = _STATUS_LINE.fullmatch(first)
    status = int(match[1]) if match is not None else 0
    if status in {0, 204, 304}:
        return None
    if len(_statuses) >= _STATUSES:
        _statuses.clear()
    _statuses[first] = status
    return status
