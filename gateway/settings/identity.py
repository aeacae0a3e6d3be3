"""How a request says who is asking."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gateway.settings.base import InputFile, Settings, absent_when_empty


class Jwt(Settings):
    """How a user's token is verified."""

    algorithm: Literal["EdDSA", "RS256", "HS256"] = "EdDSA"
    """The only one that is accepted."""
    key_file: InputFile
    """The public keys as PEM, or the secrets of HS256, one a line; read anew when the file changes."""


class Identity(Settings):
    """Where a request says who is asking."""

    cookie: str | None = Field(None, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$")
    """Name of the cookie that holds the token."""
    header: str | None = Field("authorization", pattern=r"^[A-Za-z0-9-]{1,64}$")
    """Name of the field that holds it, as `Bearer TOKEN`."""
    tier_claim: str = Field("tier", pattern=r"^[!-~]{1,64}$")
    """The claim that names a user's tier, for limits with a rate for each."""
    jwt: Annotated[Jwt | None, BeforeValidator(absent_when_empty("key_file"))] = None
    """How tokens are verified; left out: everyone is anonymous and counted by address."""
