"""Commands that run something: the whole stack, or one process of it."""

from __future__ import annotations

from pathlib import Path

import click

from ops.commands.group import EXIT_CODES, become, data_option

_PORT = click.IntRange(1, 65535)


@click.command(epilog=EXIT_CODES)
@data_option
@click.option("--port", type=_PORT, default=8000, show_default=True, help="The shop, through the gateway.")
@click.option("--admin-port", type=_PORT, default=9900, show_default=True, help="The admin API and console.")
@click.option("--workers", type=click.IntRange(1, 64), help="Gateway processes; else as configured.")
@click.option("--fresh", is_flag=True, help="Throw away the data in --data first; keys stay.")
@click.option("--config", type=click.Path(path_type=Path), help="Gateway config; else config/gateway.yaml.")
@click.option("--session-redis", is_flag=True, help="A Redis of its own for sessions and carts.")
def up(
    data: Path,
    port: int,
    admin_port: int,
    workers: int | None,
    config: Path | None,
    *,
    fresh: bool,
    session_redis: bool,
) -> None:
    """Run the whole stack on this machine until Ctrl-C or SIGTERM."""
    from ops import stack
    from ops.plan import Options

    if port == admin_port:
        raise click.UsageError("--port and --admin-port must differ")
    stack.up(Options(data, port, admin_port, workers, fresh, config, session_redis))


@click.command()
@click.option("--config", type=click.Path(), required=True, help="Config file.")
@click.option("--port", type=click.IntRange(0, 65535), help="Overrides listen.port.")
@click.option("--admin-port", type=click.IntRange(0, 65535), help="Overrides admin.port.")
@click.option("--workers", type=click.IntRange(1, 64), help="Overrides listen.workers.")
def gateway(config: str, port: int | None, admin_port: int | None, workers: int | None) -> None:
    """Run the gateway alone, before any HTTP upstream."""
    words = ["gateway", "serve", "--config", config]
    for name, value in (("--port", port), ("--admin-port", admin_port), ("--workers", workers)):
        if value is not None:
            words += [name, str(value)]
    become(*words)


def _shop_process(name: str, summary: str) -> click.Command:
    module_word = "serve" if name == "shop" else name

    @click.command(
        name, help=summary, context_settings={"ignore_unknown_options": True, "help_option_names": []}
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(words: tuple[str, ...]) -> None:
        become("shop_backend", module_word, *words)

    return command


@click.command(epilog=EXIT_CODES)
@data_option
def keys(data: Path) -> None:
    """Make the secrets of --data, those that are missing; `up` does it too. For containers."""
    from ops import datadir, secrets

    datadir.prepare(data)
    place = secrets.load_or_make(data.resolve(), {}).admin_token_place
    click.echo(f"keys in {data.resolve() / 'keys'}, admin token in {place}")


COMMANDS = (
    up,
    gateway,
    _shop_process("shop", "Run one process of the shop; settings come from TIDEGATE_* variables."),
    _shop_process("worker", "Run one worker: orders, callbacks, sweeper, outbox."),
    _shop_process("sandbox", "Run the sandbox payment provider."),
    keys,
)
