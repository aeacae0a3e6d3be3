"""What every block of the configuration is made of: names, ports, files, and how empty values read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Parameter = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]  # as in {name} of a path
Port = Annotated[int, Field(ge=0, le=65535)]
Priority = Literal["critical", "normal", "optional"]


class Settings(BaseModel):
    """Base of every block: unknown keys are mistakes, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, use_attribute_docstrings=True)


def _readable(value: Path, info: ValidationInfo) -> Path:
    """A file that must be there, looked up beside the configuration that names it."""
    path = (info.context or {}).get("base", Path()) / value
    try:
        with path.open("rb"):
            return Path(path)
    except OSError as error:
        raise ValueError(f"{value} can't be read: {(error.strerror or 'no such file').lower()}") from None


InputFile = Annotated[Path, AfterValidator(_readable)]


def word(value: object) -> object:
    """The word that an operator meant: YAML 1.1 reads a bare on or off as a truth value."""
    return ("off", "on")[value] if isinstance(value, bool) else value


def none_when_empty(value: object) -> object:
    """A key that `${VARIABLE:-}` left empty counts as left out."""
    return None if value == "" else value


def absent_when_empty(key: str) -> Callable[[object], object]:
    """A block whose main key is empty, as `${VARIABLE:-}` leaves it, counts as left out."""

    def absent(value: object) -> object:
        return None if isinstance(value, dict) and key in value and value[key] in ("", None) else value

    return absent
