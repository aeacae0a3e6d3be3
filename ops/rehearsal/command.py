"""`tidegate rehearse`: set the stage, let the crowd in, wait for rest, audit, judge."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from ops import datadir, stores
from ops.admin_client import VARIABLE, AdminClient, Token
from ops.audit import command as audit
from ops.errors import NoStack, OpsError
from ops.rehearsal import crowd, page, pulse, stage, timeline
from ops.rehearsal.crowd import Scene
from ops.rehearsal.notes import Notes
from ops.rehearsal.promises import judge
from ops.rehearsal.report import Report, show
from ops.rehearsal.stage import Cards
from ops.rehearsal.watch import Watch

SLACK = 300.0  # seconds that the sale stays open beyond twice the crowd's time
REST = 60.0  # seconds that ladder, breakers, streams and mails may take to come to rest
_FILES = 256  # descriptors beside those of the crowd


@dataclass(frozen=True, slots=True)
class Play:
    """What is asked for.

    Attributes:
        buyers: how many want to buy.
        onlookers: how many only look, for each buyer.
        seconds: from the first arrival to the last.
        cards: how many keys the rehearsal's own product has.
        sku: another product, with the stock it has; None takes the rehearsal's own.
        seed: another crowd of the same shape.
    """

    buyers: int
    onlookers: int
    seconds: float
    cards: int
    sku: str | None
    seed: int


def run(data: Path, play: Play, *, as_json: bool, report_file: Path | None) -> int:
    """Rehearse against the stack of `data`, and print the outcome.

    Args:
        data: folder of the stack.
        play: what is asked for.
        as_json: one document instead of text.
        report_file: where to write the outcome as a page with plots too.

    Returns:
        0 when every promise was kept, else 1.

    Raises:
        OpsError: the stack is not one to rehearse with, or something of it does not answer.
    """
    environment = stores.client_environment(data, os.environ)
    given = os.environ.get(VARIABLE)
    token = Token(given, VARIABLE) if given else None
    client = AdminClient.find(data, os.environ.get("TIDEGATE_ADMIN_URL") or None, token)
    shop = datadir.read_state(data).get("urls", {}).get("gateway")
    sandbox = environment.get("TIDEGATE_SANDBOX_URL")
    if not shop or not sandbox:
        raise NoStack(f"no stack has run in {data}; name its folder with --data")
    _room_for(play.buyers * (1 + play.onlookers))
    scene = Scene(shop, sandbox.rstrip("/"), play.sku or stage.SKU, play.seed)
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        if play.sku:
            cards = stage.cards_of(environment, play.sku)
        else:
            cards = stage.open_sale(environment, play.cards + 1, 2 * play.seconds + SLACK)
        report = asyncio.run(_play(scene, client, play, cards, environment))
    finally:
        if play.sku is None:
            stage.close_sale(environment)
        signal.signal(signal.SIGTERM, before)
    if report_file is not None:
        report_file.write_text(page.render(report), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(report.document(), indent=2))
    else:
        show(report)
    return 0 if report.kept else 1


async def _play(
    scene: Scene, client: AdminClient, play: Play, cards: Cards, environment: Mapping[str, str]
) -> Report:
    first = await crowd.walk_through(scene)
    if first.end != "delivered":
        said = f" ({first.said})" if first.said else ""
        raise OpsError(
            f"one buyer alone could not buy {scene.sku}: {first.end}{said}; nothing was rehearsed. "
            "`tidegate status` shows what is wrong"
        )
    _say(f"one buyer alone has the key after {first.waited:.1f} s; now the crowd")
    notes = Notes(cards.free - 1, returning=cards.held)
    people = play.buyers * (1 + play.onlookers)
    plan = pulse.arrivals(people, play.seconds, play.seed)
    watch = Watch(client)
    began = datetime.now(tz=UTC)
    watching = asyncio.create_task(watch.keep())
    try:
        await crowd.play(scene, plan, play.onlookers, notes)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    _say("the crowd has gone; waiting for rest, then the audit")
    calm = await watch.calm(REST)
    answered = frozenset(buyer.order_id for buyer in notes.buyers if buyer.order_id)
    violations = await asyncio.to_thread(audit.settle, environment, REST, answered)
    seconds = timeline.seconds(notes.requests, watch.glances)
    return Report(began, scene.sku, people, play.seconds, notes, seconds, judge(notes, violations, calm=calm))


def _leave(number: int, _: object) -> NoReturn:
    """Told to stop: what was opened is closed on the way out."""
    raise SystemExit(128 + number)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _room_for(people: int) -> None:
    """Everybody holds a connection.

    Raises:
        OpsError: the system allows fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = people + _FILES
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise OpsError(f"{people} people need {wanted} open files, {hard} are allowed; raise `ulimit -n`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
