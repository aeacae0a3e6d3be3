"""Completion in the shell: commands and options, and the names that the running gateway knows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from ops.commands.group import STANDARD_DATA
from ops.errors import OpsError

SHELLS = ("bash", "zsh", "fish")
_PATIENCE = 0.8  # seconds; somebody sits at the keyboard
_PLACES = {  # of a kind of name in the admin API: path, list, and the key of the name
    "features": ("/api/features", "features", "name"),
    "breakers": ("/api/breakers", "breakers", "upstream"),
    "limits": ("/api/limits", "limits", "name"),
    "steps": ("/api/step", "steps", "name"),
    "shut-offs": ("/api/shut-offs", "shut_offs", "id"),
}
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def names(kind: str, *more: str) -> Completer:
    """Offers the names of a kind that the running gateway has configured, and `more`.

    Without a gateway, or without its token, there is nothing to offer; completion never complains.
    """

    def complete(ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in (*_known(ctx, kind), *more) if name.startswith(begun)]

    return complete


def _known(ctx: click.Context, kind: str) -> list[str]:
    from dataclasses import replace

    from ops.admin_client import AdminClient

    path, listed, key = _PLACES[kind]
    words = ctx.params
    try:
        client = AdminClient.find(
            Path(words.get("data") or STANDARD_DATA), words.get("admin_url"), words.get("token")
        )
        answer = replace(client, timeout=_PATIENCE).get(path)
    except OpsError:
        return []
    found = answer.get(listed) if isinstance(answer, dict) else None
    return [str(item[key]) for item in found or [] if isinstance(item, dict) and key in item]


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    r"""Print what makes a shell complete our words; the names of features, breakers and limits too.

    \b
    bash  echo 'eval "$(tidegate completion bash)"' >> ~/.bashrc
    zsh   echo 'eval "$(tidegate completion zsh)"' >> ~/.zshrc
    fish  tidegate completion fish > ~/.config/fish/completions/tidegate.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click knows the three
    made = kind(ctx.find_root().command, {}, "tidegate", "_TIDEGATE_COMPLETE")
    # Not `made.source()`: it would ask the shell that is installed here for its version first.
    sys.stdout.write(made.source_template % made.source_vars() + "\n")


COMMANDS = (completion,)
