"""Which fault, when, for how long: drawn from a seed, so that a schedule can be run again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

PROCESSES = (
    "gateway-worker",
    "gateway",  # its master
    "shop",
    "worker",
    "sandbox",
    "redis-durable",
    "redis-volatile",
    "postgres",
)
STORES = ("redis-durable", "redis-volatile")
CLOCKS = ("gateway", "shop")
KINDS: tuple[tuple[str, str], ...] = (
    *(("kill", process) for process in PROCESSES),
    *(("stop", process) for process in PROCESSES),
    *(("hole", store) for store in STORES),
    *(("slow", store) for store in STORES),
    ("flush", "redis-volatile"),
    ("lose", "redis-durable"),
    ("storm", "callbacks"),
    *(("clock", host) for host in CLOCKS),
)
WIRED = ("hole", "slow")  # possible only with a proxy before Redis
KILLED = ("redis-durable", "redis-volatile", "postgres", "shop", "worker")  # in a series of kills
_JUMPS = (-3600.0, -60.0, -10.0, 10.0, 60.0, 3600.0)  # seconds


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        at: seconds after the sale began.
        kind: kill, stop, hole (nothing passes), slow, flush, lose (data and process), storm, clock.
        target: whom it hits.
        lasts: seconds until it is undone; 0 when it undoes itself.
        amount: slow: seconds that each piece waits; clock: seconds that it jumps.
    """

    at: float
    kind: str
    target: str
    lasts: float = 0.0
    amount: float = 0.0

    def __str__(self) -> str:
        amount = f" by {self.amount:+g} s" if self.amount else ""
        lasts = f" for {self.lasts:.1f} s" if self.lasts else ""
        return f"{self.at:.1f} {self.kind} {self.target}{amount}{lasts}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """The faults of one run, in order.

    Attributes:
        seed: what it was drawn from.
        seconds: how long the sale lasts.
        wired: Redis stands behind a proxy, run beside the stack; else the stack runs its own.
        faults: what goes wrong.
    """

    seed: int
    seconds: float
    wired: bool
    faults: tuple[Fault, ...]


def draw(seed: int, seconds: float) -> Schedule:
    """The schedule of a seed: the kinds in random order, one every two seconds or so."""
    random = Random(seed)
    wired = random.random() < 0.75
    deck = _decks(random, wired)
    faults = []
    at = random.uniform(1.0, 3.0)
    while at < seconds - 1.0:
        faults.append(_fault(random, at, *next(deck)))
        at += random.uniform(1.5, 5.5)
    return Schedule(seed, seconds, wired, tuple(faults))


def draw_kills(seed: int, times: int) -> Schedule:
    """Kills only: each process `times` times, in rounds, each round in its own order.

    The pauses leave what was killed time to be started again: a supervisor waits longer the oftener one
    falls, and killing what does not run is no kill.
    """
    random = Random(seed)
    faults = []
    at = 3.0
    for _ in range(times):
        for target in random.sample(KILLED, len(KILLED)):
            faults.append(Fault(round(at, 2), "kill", target))
            at += random.uniform(2.5, 4.5)
    return Schedule(seed, at + 5.0, False, tuple(faults))


def _decks(random: Random, wired: bool) -> Iterator[tuple[str, str]]:
    while True:
        deck = [kind for kind in KINDS if wired or kind[0] not in WIRED]
        random.shuffle(deck)
        yield from deck


def _fault(random: Random, at: float, kind: str, target: str) -> Fault:
    lasts = amount = 0.0
    if kind in {"stop", "hole"}:
        lasts = random.uniform(0.3, 6.0)
    elif kind == "slow":
        lasts, amount = random.uniform(2.0, 8.0), random.choice((0.01, 0.05, 0.2))
    elif kind == "clock":
        lasts, amount = random.uniform(3.0, 10.0), random.choice(_JUMPS)
    return Fault(round(at, 2), kind, target, round(lasts, 2), amount)
