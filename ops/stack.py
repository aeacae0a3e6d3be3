"""`tidegate up`: the whole stack on one machine, from an empty folder to `ready`."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ops import datadir, ports
from ops.console import say, show
from ops.embedded import socket_folder
from ops.errors import OpsError, PortInUse
from ops.logs import Follower, one_line, shorter
from ops.plan import ROOT, Options, Plan
from ops.supervisor import Interrupted, Supervisor


def up(options: Options) -> None:
    """Run the stack until SIGINT or SIGTERM.

    Raises:
        OpsError: something stands in the way; everything started has been stopped.
    """
    data = options.data.resolve()
    config = find_config(options.config)
    if options.fresh and not datadir.is_ours(data):
        raise OpsError(f"{data} was not made by `tidegate up`: --fresh will not empty it")
    made = datadir.absent(data)
    datadir.prepare(data)
    os.umask(0o077)  # mails, ledgers and logs are nobody else's business
    try:
        with datadir.locked(data) as lock:
            # All that can be seen to fail without starting anything is looked at first.
            try:
                ports.require(options.port, "gateway", "--port")
                ports.require(options.admin_port, "admin API", "--admin-port")
            except PortInUse:
                datadir.remove(made)
                raise
            remembered = datadir.read_state(data).get("ports", {})
            if options.fresh:
                datadir.empty(data)
            _run(options, data, config, remembered, lock)
    except OSError as error:
        raise OpsError(f"{data}: {one_line(error)}") from error


def find_config(asked: Path | None) -> Path:
    """The gateway's config file.

    Raises:
        OpsError: it does not exist.
    """
    candidates = [asked] if asked is not None else [Path("config/gateway.yaml"), ROOT / "config/gateway.yaml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise OpsError(f"{candidates[-1]} not found; name the gateway's config with --config FILE")


def _run(options: Options, data: Path, config: Path, remembered: Mapping[str, Any], lock: int) -> None:
    plan = Plan.make(options, data, config, remembered)
    state: dict[str, Any] = {
        "pid": os.getpid(),
        "ready": False,
        "data": str(data),
        "config": str(config),
        "ports": plan.ports,
        "urls": plan.urls,
        "stores": plan.stores,
        "admin_token_place": plan.secrets.admin_token_place,
        "pids": {},
    }

    def changed(pids: Mapping[str, int]) -> None:
        state["pids"] = dict(pids)
        try:
            datadir.write_state(data, state)
        except OSError as error:
            if not state["ready"]:
                raise
            say(f"cannot write {data / datadir.STATE}: {error.strerror}; the stack goes on")

    supervisor = Supervisor(data / "logs", say, changed, lock=lock)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.request_stop())
    say(f"starting the stack in {data}")
    run = socket_folder(data)
    try:
        with supervisor:
            plan.start(supervisor)
            state["ready"] = True
            changed(state["pids"])
            show(  # without the time: scripts wait for a line that begins with this word
                f"ready  shop {plan.urls['gateway']}/  admin {plan.urls['admin']}/  "
                f"sandbox {plan.urls['sandbox']}/  admin token in {plan.secrets.admin_token_place}"
            )
            supervisor.run(_tell_news(data / "logs", config))
            state["ready"] = False
            say("stopping")
    except Interrupted:
        say("stopped while starting")
        return
    finally:
        if not run.is_relative_to(data):
            shutil.rmtree(run, ignore_errors=True)
    say("stopped")


def _tell_news(logs: Path, config: Path) -> Callable[[], None]:
    """Says on the console what the gateway's log says of edits of its config."""
    news = Follower(logs / "gateway.log", "gateway.config")

    def tell() -> None:
        for line in news.read():
            said = line.replace(str(config), shorter(str(config)))
            say(said if said.startswith(" ") else f"gateway: {said}")

    return tell
