"""How a case is written: requests one after the other, what the upstream says to each, and who answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Who answers: the cache alone, the upstream, the cache in place of an upstream that fails, or the cache when
# the upstream has said that what it keeps still holds (by ETag, by Last-Modified). Nothing: either may.
By = Literal["", "cache", "upstream", "stale", "etag", "date"]
PAUSE = 3.0  # seconds that pass before each request but the first


@dataclass(frozen=True)
class Ask:
    """One request.

    Field lines are written `Name: value`; a value `@-300` is the date 300 s before the case began.

    Attributes:
        by: who answers it.
        send: the request's fields.
        says: the upstream's fields, should it be asked. It adds a Date unless one is given.
        method: of the request.
        target: of the request.
        status: of the upstream's answer.
        body: of the upstream's answer; left out, it is the number of the request.
        hints: the upstream sends these interim answers first.
        delay: seconds that the upstream takes.
        breaks: the upstream breaks off instead.
        gets: the status that the client must get; 0: whichever the upstream said.
        has: fields that the client must get; `Name: >5` is a number above 5.
        lacks: fields that it must not.
        told: fields that the upstream must get.
        pause: seconds that pass before it.
    """

    by: By = ""
    send: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    method: str = "GET"
    target: str = "/x"
    status: int = 200
    body: str | None = None
    hints: tuple[str, ...] = ()
    delay: float = 0.0
    breaks: bool = False
    gets: int = 0
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    pause: float = PAUSE


@dataclass(frozen=True)
class Case:
    """A case and our verdict.

    Attributes:
        name: its id in the public suite.
        asks: the requests. Empty: not applicable.
        why: what the suite asks of it is optional, and for this reason we do otherwise: then `asks` says what
            we do. Or why it is not applicable.
    """

    name: str
    asks: tuple[Ask, ...]
    why: str = ""


def reused(name: str, *says: str, status: int = 200, why: str = "") -> Case:
    """Two like requests: the second is answered by the cache."""
    return Case(name, (Ask("upstream", says=says, status=status), Ask("cache", gets=status)), why)


def asked(name: str, *says: str, status: int = 200, why: str = "") -> Case:
    """Two like requests: the upstream is asked for the second."""
    return Case(name, (Ask("upstream", says=says, status=status), Ask("upstream", says=says)), why)


def not_applicable(why: str, *names: str) -> list[Case]:
    """Cases of things that we don't do."""
    return [Case(name, (), why) for name in names]
