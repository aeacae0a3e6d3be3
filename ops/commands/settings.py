"""Commands about the gateway's file: is it good, what would it change, and whose token is in it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.commands.admin import admin_command, connection_options
from ops.commands.group import EXIT_CODES, become
from ops.errors import OpsError

if TYPE_CHECKING:
    from ops.admin_client import AdminClient, Json, Token

_NAME = re.compile("[a-z][a-z0-9_-]{0,62}")  # as admin.tokens has it


@click.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path())
@click.option(
    "--diff", is_flag=True, help="Ask the running gateway what the file would change; changes nothing."
)
@click.option("--json", "as_json", is_flag=True, help="With --diff: the admin API's answer as it is.")
@connection_options
def check(
    file: str, *, diff: bool, as_json: bool, data: Path, admin_url: str | None, token: Token | None
) -> None:
    """Validate a gateway config; one line per mistake, exit status 1 when there are any."""
    if not diff:
        become("gateway", "check", file)
    from ops.admin_client import AdminClient

    try:
        text = Path(file).read_bytes()
    except OSError as error:
        raise OpsError(f"{file} can't be read: {error.strerror}") from error
    from ops import change

    client = AdminClient.find(data, admin_url, token)
    answer = _told_of_mistakes(lambda: client.post("/api/config/check", text), file)
    click.echo(json.dumps(answer) if as_json else change.differences(answer))


@click.command(epilog=EXIT_CODES)
@admin_command
@click.option("--json", "as_json", is_flag=True, help="The admin API's answer as it is.")
def reload(client: AdminClient, *, as_json: bool) -> None:
    """Let the gateway's config file hold as it stands, now; a mistake changes nothing, exit status 1.

    An edit holds by itself within two seconds; this waits until it does, and says what it changed,
    or what the last edit has changed when that holds already.
    """
    from ops import change, trail

    answer = _told_of_mistakes(lambda: client.post("/api/config/reload", b""))
    if as_json:
        click.echo(json.dumps(answer))
        return
    click.echo(change.reload(answer, lambda version: trail.taken(client.get("/api/audit"), version)))


def _told_of_mistakes(call: Callable[[], Json], file: str = "sent") -> Json:
    """What the call answers; lines of a file that are wrong are printed, and that is the end."""
    from ops.errors import Refused

    try:
        return call()
    except Refused as error:
        if not error.mistakes:
            raise
        for line in error.mistakes:
            click.echo(file + line.removeprefix("sent") if line.startswith("sent") else line, err=True)
        sys.exit(1)


def _name(_: click.Context, __: click.Parameter, given: str) -> str:
    """A name that the config takes."""
    if not _NAME.fullmatch(given):
        raise click.BadParameter(f"{given!r}; use lower-case letters, digits, - and _, a letter first")
    return given


@click.command(epilog=EXIT_CODES)
@click.argument("name", callback=_name)
@click.option(
    "--role",
    type=click.Choice(["viewer", "operator"]),
    default="viewer",
    show_default=True,
    help="What they may.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
def token(name: str, role: str, *, as_json: bool) -> None:
    """Make a token for the admin API, and the line of the gateway's config that lets it in."""
    from ops import secrets

    made, digest = secrets.admin_token()
    if as_json:
        click.echo(json.dumps({"name": name, "role": role, "token": made, "token_sha256": digest}))
        return
    click.echo(f"token, for {name} alone; it is kept nowhere:\n  {made}")
    click.echo("below admin: in the gateway's config, which takes it without a restart; put it in place of")
    click.echo("`tokens: []`, or only its last line below the tokens that are there already:")
    click.echo(f"  tokens:\n    - {{name: {name}, role: {role}, token_sha256: {digest}}}")


COMMANDS = (check, reload, token)
