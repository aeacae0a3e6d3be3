"""What a shared cache may keep and for how long it is fresh: RFC 9111 as plain arithmetic, no I/O.

Section numbers are those of RFC 9111 unless another is named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.exchange import Header

LONGEST = 1 << 31  # seconds; longer ages and lifetimes count as this (1.2.2)
# Statuses whose answer means the same to everyone who asks. 206 and 304 are parts of others, 5xx pass.
KEPT = frozenset({200, 203, 204, 300, 301, 302, 307, 308, 404, 410})

_MEMBERS = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_CLOSED = re.compile(r'(?:[^"]|"(?:[^"\\]|\\.)*+")*+')  # every quote is
_DIGITS = re.compile(r'"?([0-9]+)"?')  # both forms are to be understood (5.2)
_MONTHS = {
    name: number
    for number, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1
    )
}
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DATES = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (  # RFC 9110, 5.6.7
        r"[a-z]{3}, (?P<day>[0-9]{2}) (?P<month>[a-z]{3}) (?P<year>[0-9]{4}) " + _TIME + " GMT",
        r"[a-z]{6,9}, (?P<day>[0-9]{2})-(?P<month>[a-z]{3})-(?P<year>[0-9]{2}) " + _TIME + " GMT",
        r"[a-z]{3} (?P<month>[a-z]{3}) (?P<day>[0-9 ][0-9]) " + _TIME + r" (?P<year>[0-9]{4})",
    )
)


@dataclass(frozen=True, slots=True)
class Caps:
    """What an operator allows a route's answers, whatever they say of themselves. All in seconds.

    Attributes:
        ttl: longest time that an answer is served as fresh.
        stale_while_revalidate: for answers that don't say it themselves.
        stale_if_error: for answers that don't say it themselves.
    """

    ttl: float
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms an answer is kept. Times are seconds.

    Attributes:
        age: how old it was when it came (`corrected_initial_age`, 4.2.3).
        lifetime: at which age it stops being fresh.
        stale_while_revalidate: for how long after that it is served while it is asked for anew (RFC 5861).
        stale_if_error: for how long after that it stands in for a failure (RFC 5861).
        public: it may go to those who sent credentials.
        strict: it forbids to be used when it is no longer fresh, whatever the occasion (4.2.4).
    """

    age: float
    lifetime: float
    stale_while_revalidate: float
    stale_if_error: float
    public: bool
    strict: bool = False


def terms(
    headers: Header,
    caps: Caps,
    *,
    credentials: bool,
    received: float,
    delay: float,
) -> Terms | None:
    """On which terms an answer's header lets a shared cache keep it; None when it does not.

    Args:
        headers: the answer's fields, names in lower case.
        caps: the operator's bounds.
        credentials: the request had Authorization or a cookie.
        received: when the answer came, seconds since 1970.
        delay: seconds between the request and its answer.
    """
    names = {name for name, _ in headers}
    if b"set-cookie" in names or b"content-range" in names:
        return None  # meant for one client, or a part
    said = directives(headers)
    if "must-understand" in said:
        said.pop("no-store", None)  # for caches that don't know the status; we know all of KEPT (5.2.2.3)
    if not said.keys().isdisjoint({"no-store", "private", "no-cache"}):
        return None  # no-cache could be kept, but each use would cost the upstream a call all the same
    public = "public" in said
    if credentials and not public:
        return None  # 3.5, and the same for cookies
    if b"vary" in names and varies_by(headers) is None:
        return None
    lifetime = _lifetime(headers, said, received)
    if lifetime is None:
        return None  # no guessing: what is not said to be fresh is not
    age = _initial_age(headers, received, delay)
    fresh_for = min(lifetime - age, caps.ttl)
    strict = not said.keys().isdisjoint({"must-revalidate", "proxy-revalidate", "s-maxage"})  # 4.2.4
    allowed = Terms(
        age=age,
        lifetime=age + fresh_for,
        stale_while_revalidate=0.0
        if strict
        else _seconds(said, "stale-while-revalidate", caps.stale_while_revalidate),
        stale_if_error=0.0 if strict else _seconds(said, "stale-if-error", caps.stale_if_error),
        public=public,
        strict=strict,
    )
    stale_for = max(allowed.stale_while_revalidate, allowed.stale_if_error)
    worth = fresh_for > 0 or fresh_for + stale_for > 0 or b"etag" in names or b"last-modified" in names
    return allowed if worth else None


def directives(headers: Header) -> dict[str, str]:
    """The directives of all Cache-Control fields; of two that name a time, the shorter."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name != b"cache-control":
            continue
        text = value.decode("latin-1")
        # An unclosed quote must not hide a no-store behind it, nor its end be looked for from each before.
        members = _MEMBERS.findall(text) if _CLOSED.fullmatch(text) else text.split(",")
        for member in members:
            key, _, argument = member.partition("=")
            key = key.lstrip(" \t").lower()
            if key != key.rstrip(" \t"):  # "max-age =5": no valid time, but a no-store is meant
                key, argument = key.rstrip(" \t"), "invalid"
            argument = argument.rstrip(" \t")
            if key in found:
                argument = min(found[key], argument, key=_delta)
            found[key] = argument
    return found


def varies_by(headers: Header) -> tuple[bytes, ...] | None:
    """The request fields that Vary names, sorted; None when it names everything."""
    names: set[bytes] = set()
    for name, value in headers:
        if name == b"vary":
            names.update(part.strip().lower() for part in value.split(b","))
    names.discard(b"")
    return None if b"*" in names else tuple(sorted(names))


def parse_date(text: bytes, now: float) -> float | None:
    """Seconds since 1970 of an HTTP date in one of its three forms; None when it is none.

    Args:
        text: the field's value.
        now: seconds since 1970; decides the century of a two-digit year.
    """
    value = text.decode("latin-1").strip()
    for form in _DATES:
        match = form.fullmatch(value)
        if match is None:
            continue
        year = int(match["year"])
        if len(match["year"]) == 2:
            year += 2000
            if year > datetime.fromtimestamp(now, UTC).year + 50:
                year -= 100
        try:
            month = _MONTHS[match["month"].lower()]
            clock = (int(match["hour"]), int(match["minute"]), min(int(match["second"]), 59))
            return datetime(year, month, int(match["day"]), *clock, tzinfo=UTC).timestamp()
        except (KeyError, ValueError):
            return None
    return None


# ---- the arithmetic of 4.2 -------------------------------------------------------------------


def _delta(argument: str) -> int:
    """Seconds of a directive's argument; what is invalid counts as 0, so as stale (4.2.1)."""
    match = _DIGITS.fullmatch(argument)
    if match is None:
        return 0
    digits = match[1].lstrip("0") or "0"
    return min(int(digits), LONGEST) if len(digits) <= 10 else LONGEST


def _seconds(said: dict[str, str], name: str, default: float) -> float:
    return float(_delta(said[name])) if name in said else default


def _lifetime(headers: Header, said: dict[str, str], received: float) -> float | None:
    """Freshness lifetime (4.2.1), without heuristics."""
    for name in ("s-maxage", "max-age"):
        if name in said:
            return float(_delta(said[name]))
    expires = _values(headers, b"expires")
    if not expires:
        return None
    at = parse_date(expires[0], received)
    if at is None or any(value != expires[0] for value in expires):
        return 0.0  # "0" above all: already expired (5.3)
    return max(0.0, min(at - _generated(headers, received), float(LONGEST)))


def _initial_age(headers: Header, received: float, delay: float) -> float:
    """How old the answer was when it came (4.2.3)."""
    apparent = max(0.0, received - _generated(headers, received))
    return min(max(apparent, _age_value(headers) + max(0.0, delay)), float(LONGEST))


def _age_value(headers: Header) -> int:
    """The Age field: of several the first, ignored when it is no number (5.1)."""
    values = _values(headers, b"age")
    first = values[0].split(b",")[0].strip() if values else b"0"
    return _delta(first.decode("latin-1")) if first.isdigit() else 0


def _generated(headers: Header, received: float) -> float:
    dates = _values(headers, b"date")
    said = parse_date(dates[0], received) if dates else None
    return received if said is None else said


def _values(headers: Header, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]
