"""The door for operators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from gateway.settings.base import InputFile, Port, Settings, none_when_empty


class Admin(Settings):
    """Where operators come in. The token comes from TIDEGATE_ADMIN_TOKEN or from a file."""

    host: str = "127.0.0.1"
    port: Port = 9900
    token_file: Annotated[InputFile | None, BeforeValidator(none_when_empty)] = None
    state_file: Annotated[Path | None, BeforeValidator(none_when_empty)] = (
        None  # switches survive a restart even with Redis away
    )
