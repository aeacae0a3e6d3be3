"""python -m shop_backend: the shop's processes, and its commands for operators; `--help` lists them."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import socket
import sys
from pathlib import Path

import psycopg
import uvicorn
import uvloop
from starlette.applications import Starlette

from shop_backend import cards_command, config, logs, metrics, tracing
from shop_backend.config import Settings
from shop_backend.errors import SetupError, Unavailable
from shop_backend.money import money
from shop_backend.stock import keys

_log = logging.getLogger("shop_backend")


def main() -> int:
    """Run one command; 0 when it went well, 1 with one clear line when it can't start, 2 for bad usage."""
    arguments = _parser().parse_args()
    listener = logs.start()
    try:
        status, complaint = _run(arguments)
    finally:
        listener.stop()  # what is queued comes first
    if complaint:
        sys.stderr.write(f"shop_backend {arguments.command}: {complaint}\n")
    return status


def _run(arguments: argparse.Namespace) -> tuple[int, str]:
    try:
        return int(arguments.run(config.load(arguments.config), arguments)), ""
    except (SetupError, Unavailable) as error:
        return 1, str(error)
    except psycopg.Error as error:
        # The first line says what; the rest may quote a row.
        return 1, f"PostgreSQL: {str(error).strip().splitlines()[0]}"
    except KeyboardInterrupt:
        return 130, ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shop_backend", description="The card shop.")
    parser.add_argument("--config", type=Path, help="settings file (default: config/shop.yaml, if there)")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer shoppers")
    serve.add_argument("--host")
    serve.add_argument("--port", type=int)
    serve.add_argument("--metrics-port", type=int)
    serve.set_defaults(run=_serve)
    worker = commands.add_parser("worker", help="do the background work")
    worker.add_argument("--metrics-port", type=int)
    worker.set_defaults(run=_worker)
    sandbox = commands.add_parser("sandbox", help="a payment provider to rehearse against")
    sandbox.add_argument("--host")
    sandbox.add_argument("--port", type=int)
    sandbox.set_defaults(run=_sandbox)
    commands.add_parser("migrate", help="bring the database to the newest schema").set_defaults(run=_migrate)
    seed = commands.add_parser("seed", help="fill an empty shop from the catalogue")
    seed.add_argument("--from", dest="folder", type=Path, help="folder with products.csv and cards.csv")
    seed.set_defaults(run=_seed)
    outbox = commands.add_parser("outbox", help="messages to buyers: how many wait, which were given up")
    outbox.add_argument("--retry", action="store_true", help="send those again that were given up")
    outbox.set_defaults(run=_outbox)
    dead = commands.add_parser("dead-letters", help="stream entries that were given up, and why")
    dead.add_argument("--all", action="store_true", help="with those that were replayed")
    dead.add_argument(
        "--replay", nargs="+", metavar="NUMBER", type=_letter, help="queue these again; `all` for every one"
    )
    dead.set_defaults(run=_dead_letters)
    refunds = commands.add_parser("refunds", help="money on its way back, and refunds that failed")
    refunds.add_argument("--retry", action="store_true", help="ask again for those that failed")
    refunds.set_defaults(run=_refunds)
    cards_command.add_to(commands)
    commands.add_parser("schema", help="print the settings' JSON Schema").set_defaults(run=_schema)
    return parser


# ---- servers ---------------------------------------------------------------------------------


def _serve(settings: Settings, arguments: argparse.Namespace) -> int:
    from shop_backend.app import create_app
    from shop_backend.vault import Vault

    metrics_port = settings.metrics_port if arguments.metrics_port is None else arguments.metrics_port
    port = settings.port if arguments.port is None else arguments.port
    Vault(settings.require("card_key"))
    asyncio.run(_wait_for_servers(settings))  # said now, in one line, not in a server's traceback
    metrics.serve(settings.host, metrics_port)
    with tracing.recording(settings.tracing_endpoint, "tidegate-shop"):
        return _uvicorn(create_app(settings), arguments.host or settings.host, port, settings.drain_for)


async def _wait_for_servers(settings: Settings) -> None:
    from shop_backend.parts import connect

    async with connect(settings):
        _log.info("every server answers")


def _sandbox(settings: Settings, arguments: argparse.Namespace) -> int:
    from shop_backend.sandbox.app import create_app

    settings.require("sandbox_secret")
    port = settings.sandbox_port if arguments.port is None else arguments.port
    return _uvicorn(create_app(settings), arguments.host or settings.host, port, settings.drain_for)


def _uvicorn(app: Starlette, host: str, port: int, drain_for: float) -> int:
    # Bound here: uvicorn would log a taken port and end by itself.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
        except OSError as error:
            raise SetupError(f"port {port} on {host}: {error.strerror}; use --port") from error
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                loop="uvloop",
                http="httptools",
                log_config=None,
                access_log=False,  # the gateway's is the one
                server_header=False,
                timeout_graceful_shutdown=int(drain_for),
                timeout_keep_alive=75,  # longer than a proxy keeps its own idle connections
                proxy_headers=False,
                lifespan="on",
            )
        )

        def leave(*_: object) -> None:
            server.should_exit = True

        # Also heard before uvicorn listens. After draining it raises the signal again for whoever did then.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, leave)
        server.run(sockets=[door])
    return 0 if server.started else 1


def _worker(settings: Settings, arguments: argparse.Namespace) -> int:
    port = settings.worker_metrics_port if arguments.metrics_port is None else arguments.metrics_port
    metrics.serve(settings.host, port)
    with tracing.recording(settings.tracing_endpoint, "tidegate-worker"):
        return uvloop.run(_work(settings))


async def _work(settings: Settings) -> int:
    from shop_backend.parts import connect
    from shop_backend.workers.mender import mending
    from shop_backend.workers.worker import Worker

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with mending(settings), connect(settings) as parts:
        metrics.REGISTRY.register(
            metrics.PoolCollector(parts.database.usage, parts.database.ceilings, parts.database.waits)
        )
        metrics.REGISTRY.register(metrics.OUTBOX)
        metrics.REGISTRY.register(metrics.OUTBOX_DEAD)
        metrics.REGISTRY.register(metrics.REFUNDS)
        _log.info("worker started")
        await Worker(settings, parts).run(stop)
    return 0


# ---- commands --------------------------------------------------------------------------------


def _schema(_: Settings, __: argparse.Namespace) -> int:
    sys.stdout.write(f"{json.dumps(config.json_schema(), indent=2)}\n")
    return 0


def _migrate(settings: Settings, _: argparse.Namespace) -> int:
    from shop_backend.storage.migrate import migrate

    migrate(settings.require("database_url"), wait=settings.database.startup_timeout)
    return 0


def _seed(settings: Settings, arguments: argparse.Namespace) -> int:
    from shop_backend.seed import seed
    from shop_backend.vault import Vault

    vault = Vault(settings.require("card_key"))
    with psycopg.connect(settings.require("database_url")) as connection:
        summary = seed(arguments.folder or settings.catalog.directory, connection, vault)
    sys.stdout.write(f"{summary or 'nothing to do: there are products and cards'}\n")
    return cards_command.restocked(settings)


def _outbox(settings: Settings, arguments: argparse.Namespace) -> int:
    with psycopg.connect(settings.require("database_url")) as connection:
        if arguments.retry:
            again = connection.execute(
                "UPDATE outbox SET state = 'pending', attempts = 0, next_attempt_at = now()"
                " WHERE state = 'dead'"
            ).rowcount
            sys.stdout.write(f"{again} to be sent again\n")
        dead = connection.execute(
            "SELECT DISTINCT channel, reference, recipient, error FROM outbox WHERE state = 'dead'"
            " ORDER BY channel, reference"
        ).fetchall()
        for channel, reference, recipient, error in dead:
            sys.stdout.write(f"{channel} {reference} to {recipient}: {error}\n")
        waiting = connection.execute("SELECT count(*) FROM outbox WHERE state = 'pending'").fetchone()
    sys.stdout.write(f"{waiting[0] if waiting else 0} waiting, {len(dead)} given up\n")
    return 0


def _letter(text: str) -> str:
    if text != "all" and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a letter's number nor `all`")
    return text


def _dead_letters(settings: Settings, arguments: argparse.Namespace) -> int:
    return asyncio.run(_read_dead_letters(settings, arguments.replay or [], replayed=arguments.all))


async def _read_dead_letters(settings: Settings, replay: list[str], *, replayed: bool) -> int:
    from shop_backend.dead_letters import DeadLetters, NotReplayed
    from shop_backend.parts import connect

    async with connect(settings) as parts:
        letters = DeadLetters(parts.database, parts.redis_durable, parts.stock)
        failed = 0
        if "all" in replay:
            replay = [str(letter.id) for letter in await letters.listed()]
        for number in replay:
            try:
                await letters.replay(int(number))
                sys.stdout.write(f"{number}: queued again\n")
            except NotReplayed as error:
                failed += 1
                sys.stdout.write(f"{number}: not replayed: {error}\n")
        listed = await letters.listed(replayed=replayed)
        for letter in listed:
            state = f"replayed {letter.replayed_at:%Y-%m-%d %H:%M:%S}" if letter.replayed_at else "given up"
            about = f"order {letter.order_id}" if letter.order_id else "of no order"
            sys.stdout.write(
                f"{letter.id}  {letter.at:%Y-%m-%d %H:%M:%S}  {keys.label(letter.stream)}  {about}  {state}:"
                f" {letter.error}\n"
            )
    sys.stdout.write(f"{sum(letter.replayed_at is None for letter in listed)} dead letters\n")
    return 1 if failed else 0


def _refunds(settings: Settings, arguments: argparse.Namespace) -> int:
    with psycopg.connect(settings.require("database_url")) as connection:
        if arguments.retry:
            again = connection.execute(
                "UPDATE refunds SET state = 'pending', attempts = 0, next_attempt_at = now()"
                " WHERE state = 'failed'"
            ).rowcount
            sys.stdout.write(f"{again} to be asked for again\n")
        owed = connection.execute(
            "SELECT state, provider, payment_id, order_id, amount_cents, currency, attempts, reason"
            " FROM refunds WHERE state <> 'refunded' ORDER BY state, created_at"
        ).fetchall()
    for state, provider, payment, order, cents, currency, attempts, reason in owed:
        amount = money(cents, currency)
        sys.stdout.write(f"{state} {amount} {provider} {payment} order {order} tries {attempts}: {reason}\n")
    sys.stdout.write(f"{len(owed)} not done, of which {sum(row[0] == 'failed' for row in owed)} failed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
