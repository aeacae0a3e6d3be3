"""The door for operators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from gateway.settings.base import InputFile, Port, Settings, none_when_empty


class Admin(Settings):
    """Where operators come in. The token comes from TIDEGATE_ADMIN_TOKEN or from a file."""

    host: str = "127.0.0.1"
    """Address to listen on. Beyond the loopback, put TLS in front."""
    port: Port = 9900
    """TCP port; 0 takes a free one."""
    token_file: Annotated[InputFile | None, BeforeValidator(none_when_empty)] = None
    """File with the token, when TIDEGATE_ADMIN_TOKEN is not set."""
    state_file: Annotated[Path | None, BeforeValidator(none_when_empty)] = None
    """Where switches are kept, so that they survive a restart even with Redis away."""
