"""How much of the shop anyone may ask for."""

from __future__ import annotations

import re
from ipaddress import IPv6Network, ip_network
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from gateway.settings.base import Name, Settings, word
from gateway.settings.examples import meant_network
from gateway.units import Rate, RateField


def _by_tier(value: object) -> object:
    return value if isinstance(value, dict) else {"default": value}


def _has_default(value: dict[str, Rate]) -> dict[str, Rate]:
    if "default" not in value:
        raise ValueError("a rate by tiers needs a default, for those who have none of them")
    return value


def _plain(rates: dict[str, Rate]) -> str | dict[str, str]:
    """As it was written: one rate for all, or one for each tier."""
    written = {tier: str(rate) for tier, rate in rates.items()}
    return written["default"] if len(written) == 1 else written


def _someone(value: object) -> object:
    """An entry of an allow or deny list: a network in its shortest form, or a user."""
    text = value if isinstance(value, str) else ""
    kind, _, user = text.partition(":")
    if kind == "user":
        if not _USER.fullmatch(user):
            raise ValueError(f"{value!r} names no user; write for example user:42")
        return text
    try:
        network = ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            raise ValueError(f"{value!r} is no network; write {meant_network(text)}") from None
        said = f"{value!r}: neither network nor user; write for example 10.0.0.0/8, 2001:db8::1 or user:42"
        raise ValueError(said) from None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError(f"{value!r}: such clients are known by their IPv4 address; write that")
    return str(network)


_USER = re.compile(r"[!-~]{1,128}")  # as identities are
Someone = Annotated[str, BeforeValidator(_someone)]
Rates = Annotated[
    dict[Name, RateField],
    BeforeValidator(_by_tier),
    AfterValidator(_has_default),
    PlainSerializer(_plain),
    WithJsonSchema(
        {
            "examples": ["20/second", {"default": "20/second", "vip": "100/second"}],
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "additionalProperties": {"type": "string"},
                    "required": ["default"],
                },
            ],
        }
    ),
]


class Limit(Settings):
    """So many requests per window, counted for each key of `per`."""

    rates: Rates = Field(alias="rate")
    """So many per window, e.g. `20/second` or `5/10 seconds`; or one for each tier, with a default."""
    per: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda v: (v,) if isinstance(v, str) else v),
        Field(min_length=1, json_schema_extra={"x-kind": "one-or-more"}),
    ]
    """What is counted together: global, user, address, route, header:NAME, param:NAME; several for their
    combination. The anonymous are users by their address. A field with several values is refused (400).
    """
    algorithm: Literal["sliding-window", "fixed-window", "token-bucket"] = "sliding-window"
    """How much passes, of C in a window W. Each request counts once, whichever worker or host it comes to;
    that is exact, what passes within some stretch of time is bounded. sliding-window: C in each window of
    the clock, at most C (1 + T/W) in any stretch T up to W; about C in any W when requests come evenly,
    nearly twice that behind a burst. token-bucket: at most C (1 + T/W) in any stretch, however long, C of
    them at once. fixed-window, the cheapest: C in each window of the clock, twice that in a moment around
    its end. Take fixed-window where a quota goes by the clock, token-bucket where the average must hold
    over any time; where no stretch of W may ever see more than C, ask for half of it, since none is that
    strict by itself."""
    mode: Annotated[Literal["enforce", "shadow", "off"], BeforeValidator(word)] = "enforce"
    """shadow: counted and reported, never refused."""
    on_store_failure: Literal["local", "allow", "refuse"] = "local"
    """With Redis away: each worker counts its share (local), or all pass (allow), or none (refuse)."""
    allow: tuple[Someone, ...] = ()
    """Whom it does not count: networks, or `user:ID`."""
    deny: tuple[Someone, ...] = ()
    """Whom it refuses with 403, also when they are allowed by another entry."""

    @property
    def rate(self) -> Rate:
        """For those who have no tier of their own."""
        return self.rates["default"]

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        for entry in self.allow:
            if entry in self.deny:
                raise ValueError(f"{entry} is in allow and in deny; remove one")
        return self

    @model_validator(mode="after")
    def _known_keys(self) -> Self:
        for part in self.per:
            kind, _, name = part.partition(":")
            if part not in {"global", "user", "address", "route"} and not (
                kind in {"header", "param"} and name
            ):
                raise ValueError(
                    f"per: {part!r} is none of global, user, address, route, header:NAME, param:NAME"
                )
        return self
