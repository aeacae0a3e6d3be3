"""What the shop promises, each judged by what the crowd itself wrote down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ops.rehearsal.notes import Notes, percentile

BUDGET = 0.001  # of the requests to buy may fail: the objective in docs/observe.md
QUICK = 1.0  # seconds, for 95 of 100 orders
LATE = 0.5  # seconds; a crowd that comes later than that proves less


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise, and whether it was kept.

    Attributes:
        promise: what is promised.
        kept: whether it was.
        figure: by which figures.
    """

    promise: str
    kept: bool
    figure: str


def judge(notes: Notes, violations: Mapping[str, Sequence[str]], *, calm: bool) -> list[Verdict]:
    """Every promise, in the order in which a shopper meets them.

    Args:
        notes: what the crowd saw.
        violations: what the audit found afterwards, by invariant.
        calm: whether ladder, breakers and streams came to rest.
    """
    verdicts = [check(notes) for check in _BY_NOTES]
    rest = "ladder down, breakers closed" if calm else "not within the time given; see `tidegate status`"
    verdicts.append(Verdict("Afterwards everything comes to rest by itself", calm, rest))
    broken = {name: found for name, found in violations.items() if found}
    said = "; ".join(f"{name}: {found[0]}" for name, found in broken.items())
    figure = said or f"{len(violations)} invariants hold"
    return [*verdicts, Verdict("The books balance: cards, orders, payments", not broken, figure)]


def _answered(notes: Notes) -> Verdict:
    lost = Counter(note.what for note in notes.requests if note.kind == "lost")
    which = f" ({', '.join(f'{count} {what}' for what, count in lost.most_common())})" if lost else ""
    figure = f"{len(notes.requests)} requests, {lost.total()} without an answer{which}"
    return Verdict("Everybody is answered", not lost, figure)


def _told(notes: Notes) -> Verdict:
    turned = [note for note in notes.requests if note.told_when is not None]
    untold = sum(not note.told_when for note in turned)
    figure = f"{len(turned)} turned away (429, 503), {untold} without Retry-After"
    return Verdict("Who is turned away is told when to come back", not untold, figure)


def _orders(notes: Notes) -> Verdict:
    orders = [note for note in notes.requests if note.what == "order"]
    failed = sum(note.status is None or note.status >= 500 for note in orders)
    share = failed / len(orders) if orders else 1.0
    figure = f"{len(orders)} requests to buy, {failed} failed ({share:.2%}; {BUDGET:.1%} may)"
    return Verdict("Ordering works", share <= BUDGET, figure)


def _quick(notes: Notes) -> Verdict:
    took = notes.took("order")
    p95 = percentile(took, 0.95)
    figure = ", ".join(f"p{share} {percentile(took, share / 100) * 1000:.0f} ms" for share in (50, 95, 99))
    return Verdict(
        f"An order is answered within {QUICK:g} s (95 of 100)", bool(took) and p95 <= QUICK, figure
    )


def _kept(notes: Notes) -> Verdict:
    paid = [buyer for buyer in notes.buyers if buyer.paid]
    good = [b for b in paid if (b.end == "delivered" and len(b.keys) == 1) or b.end == "refunded"]
    waited = [buyer.waited for buyer in good if buyer.waited is not None]
    figure = (
        f"{len(paid)} paid, {len(good)} have key or money; click to key p95 {percentile(waited, 0.95):.1f} s"
    )
    return Verdict("Whoever pays gets a key", len(good) == len(paid), figure)


def _sold(notes: Notes) -> Verdict:
    keys = [key for buyer in notes.buyers for key in buyer.keys]
    twice = len(keys) - len(set(keys))
    figure = f"{notes.cards} cards, {len(keys)} keys handed out, {twice} of them twice"
    kept = not twice and len(keys) <= notes.cards + notes.returning
    return Verdict("No key is sold twice, and none that is not there", kept, figure)


def _nobody_gives_up(notes: Notes) -> Verdict:
    ends = notes.ends()
    left_over = notes.cards - sum(ends[end] for end in ("delivered", "left", "gave up", "refunded"))
    early = ends["sold out"] and left_over > 0
    figure = ", ".join(f"{count} {end}" for end, count in ends.most_common())
    figure += f"; {left_over} cards were left" if early else ""
    kept = bool(ends) and not early and not ends["gave up"] and not ends["refused"]
    return Verdict("Every buyer gets a key or hears that it is sold out", kept, figure)


_BY_NOTES: tuple[Callable[[Notes], Verdict], ...] = (
    _answered,
    _told,
    _orders,
    _quick,
    _nobody_gives_up,
    _kept,
    _sold,
)
