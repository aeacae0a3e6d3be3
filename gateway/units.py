"""Quantities as operators write them: durations, sizes and rates."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated

import limits as rate_grammar
from pydantic import BeforeValidator, Field, PlainSerializer

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 1e10  # seconds, 300 years; more is a slip
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|kB|MB|GB)?")
_NO_WINDOW = re.compile(r"(?:/|per)\s*0+(?!\d)")  # "5/0 seconds", which limits reads as 5/second
_BYTES = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True, slots=True)
class Rate:
    """So many tokens per window, in the notation of the `limits` package: "5/10 seconds".

    Attributes:
        amount: tokens admitted per window, 1 or more.
        window: seconds.
    """

    amount: int
    window: int

    def __str__(self) -> str:
        for seconds, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
            if self.window % seconds == 0:
                times = self.window // seconds
                return f"{self.amount}/{unit}" if times == 1 else f"{self.amount}/{times} {unit}s"
        return f"{self.amount}/second" if self.window == 1 else f"{self.amount}/{self.window} seconds"


def parse_duration(value: object) -> float:
    """Seconds of "20ms", "5s", "10m", "2h", "1d", or of a bare number.

    Raises:
        ValueError: it is none of these, or negative.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LONGEST:
        return float(value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    seconds = float(match[1]) * _SECONDS[match[2]] if match is not None else math.inf
    if seconds >= _LONGEST:
        raise ValueError("not a duration; write for example 500ms, 5s, 10m or 2h")
    return seconds


def parse_size(value: object) -> int:
    """Bytes of "1MiB", "64KiB", "10MB", or of a bare number.

    Raises:
        ValueError: it is none of these, or negative.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a size; write for example 64KiB or 1MiB")
    return int(match[1]) * _BYTES[match[2]]


def parse_rate(value: object) -> Rate:
    """The rate that "20/second" or "5/10 seconds" stands for.

    Raises:
        ValueError: it is no rate, or admits nothing.
    """
    if isinstance(value, Rate):
        return value
    try:
        text = value if isinstance(value, str) and not _NO_WINDOW.search(value) else ""
        # One rate per limit; for a second rate, write a second limit.
        (item,) = rate_grammar.parse_many(text)
        rate = Rate(item.amount, item.get_expiry())
    except ValueError:
        raise ValueError("not a rate; write for example 20/second, 5/10 seconds or 100/hour") from None
    if rate.amount < 1 or rate.window < 1:
        raise ValueError(
            "a rate must admit at least 1 per window; to close a route, give it a feature and switch that off"
        )
    if rate.amount > 10**9 or rate.window > 31 * 86400:
        raise ValueError("a rate admits at most 1,000,000,000 per window of at most 31 days")
    return rate


def format_duration(seconds: float) -> str:
    """The shortest exact notation."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _SECONDS[unit] and (seconds / _SECONDS[unit]).is_integer():
            return f"{int(seconds / _SECONDS[unit])}{unit}"
    return f"{seconds * 1000:.3f}".rstrip("0").rstrip(".") + "ms"


# `x-kind` lets the schema for editors say that these are written with a unit; see schema.py.
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration),
    Field(json_schema_extra={"x-kind": "duration"}),
]
Size = Annotated[int, BeforeValidator(parse_size), Field(json_schema_extra={"x-kind": "size"})]
RateField = Annotated[Rate, BeforeValidator(parse_rate), PlainSerializer(str)]
