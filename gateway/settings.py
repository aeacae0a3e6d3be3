"""The shape of the gateway's configuration: every block, key, default and bound."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from gateway import pattern
from gateway.units import Duration, Rate, RateField, Size

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Parameter = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]  # as in {name} of a path
Port = Annotated[int, Field(ge=0, le=65535)]
Priority = Literal["critical", "normal", "optional"]


class Settings(BaseModel):
    """Base of every block: unknown keys are mistakes, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


def _readable(value: Path, info: ValidationInfo) -> Path:
    """A file that must be there, looked up beside the configuration that names it."""
    path = (info.context or {}).get("base", Path()) / value
    try:
        with path.open("rb"):
            return Path(path)
    except OSError as error:
        raise ValueError(f"{value} can't be read: {(error.strerror or 'no such file').lower()}") from None


def _word(value: object) -> object:
    # YAML 1.1 reads a bare on or off as a truth value; an operator means the word.
    return ("off", "on")[value] if isinstance(value, bool) else value


def _none_when_empty(value: object) -> object:
    return None if value == "" else value


def _absent_when_empty(key: str) -> Callable[[object], object]:
    """A block whose main key is empty, as `${VARIABLE:-}` leaves it, counts as left out."""

    def absent(value: object) -> object:
        return None if isinstance(value, dict) and key in value and value[key] in ("", None) else value

    return absent


def _network(value: object) -> object:
    if isinstance(value, bool | int | float):  # ipaddress would take them for addresses: true is 0.0.0.1
        raise ValueError(f"{value!r} is no network; write for example 10.0.0.0/8")  # noqa: TRY004 - pydantic's way
    return value


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
InputFile = Annotated[Path, AfterValidator(_readable)]


# ---- the doors -------------------------------------------------------------------------------


class Listen(Settings):
    """Where shoppers come in, and what HTTP may never pass."""

    host: str = "127.0.0.1"
    port: Port = 8000
    workers: int = Field(2, ge=1, le=64)
    trusted_proxies: tuple[Network, ...] = ()  # whose X-Forwarded-For is believed
    max_body: Size = Field(1 << 20, ge=1)
    max_target: Size = Field(8 << 10, ge=64)
    max_headers: int = Field(100, ge=8, le=10_000)
    max_header_bytes: Size = Field(32 << 10, ge=1024)
    header_timeout: Duration = Field(5.0, gt=0)  # for the whole header section
    body_timeout: Duration = Field(30.0, gt=0)  # for the whole body of a request
    write_timeout: Duration = Field(30.0, gt=0)  # for a client that reads slowly to take what waits for it
    idle_timeout: Duration = Field(75.0, gt=0)  # between requests of one connection
    drain: Duration = Field(10.0, ge=0)  # how long requests in flight may take after SIGTERM


class Admin(Settings):
    """Where operators come in. The token comes from TIDEGATE_ADMIN_TOKEN or from a file."""

    host: str = "127.0.0.1"
    port: Port = 9900
    token_file: Annotated[InputFile | None, BeforeValidator(_none_when_empty)] = None
    state_file: Annotated[Path | None, BeforeValidator(_none_when_empty)] = (
        None  # switches survive a restart even with Redis away
    )


class Redis(Settings):
    """The volatile Redis that gateways share."""

    url: Annotated[str, Field(pattern=r"^(redis|rediss|unix)://")]
    timeout: Duration = Field(0.02, gt=0, le=5)  # no request waits longer on Redis
    prefix: str = Field("tidegate", pattern=r"^[A-Za-z0-9_.-]{1,40}$")


class Jwt(Settings):
    """How a user's token is verified."""

    algorithm: Literal["EdDSA", "RS256", "HS256"] = "EdDSA"
    key_file: InputFile  # public key as PEM, or the secret of HS256


class Identity(Settings):
    """Where a request says who is asking."""

    cookie: str | None = Field(None, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$")
    header: str | None = Field("authorization", pattern=r"^[A-Za-z0-9-]{1,64}$")
    # The claim that names a user's tier, for limits with a rate for each.
    tier_claim: str = Field("tier", pattern=r"^[!-~]{1,64}$")
    jwt: Annotated[Jwt | None, BeforeValidator(_absent_when_empty("key_file"))] = None


# ---- upstreams -------------------------------------------------------------------------------


class Timeout(Settings):
    """Deadlines of one exchange with an upstream."""

    connect: Duration = Field(1.0, gt=0)
    total: Duration = Field(5.0, gt=0)  # until the response header; then between two pieces of the body


class Breaker(Settings):
    """When to stop calling an upstream, and when to try again."""

    window: Duration = Field(10.0, ge=1)
    min_requests: int = Field(20, ge=1)  # fewer in the window never open it
    failure_ratio: float = Field(0.5, gt=0, le=1)
    slow_ratio: float = Field(0.8, gt=0, le=1)
    slow_after: Duration = Field(2.0, gt=0)
    open_for: Duration = Field(5.0, gt=0)
    probes: int = Field(3, ge=1)  # admitted at once while half-open


class Shares(Settings):
    """How full an upstream may be, as a share of its slots, for a priority to be let in; critical: all."""

    normal: float = Field(0.85, gt=0, le=1)
    optional: float = Field(0.60, gt=0, le=1)


class Floors(Settings):
    """The share of the slots that a priority keeps, whatever those above it ask for."""

    normal: float = Field(0.05, ge=0, lt=0.5)
    optional: float = Field(0.02, ge=0, lt=0.5)


class Queue(Settings):
    """Who may wait for a slot, and how long. The words are CoDel's (RFC 8289)."""

    size: int = Field(64, ge=0)  # waiters of one priority, and never more than slots; 0: nobody waits
    interval: Duration = Field(0.1, gt=0, le=10)  # patience while the queue is short-lived
    target: Duration = Field(0.005, gt=0, le=10)  # patience once it has stood for an interval

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.target > self.interval:
            raise ValueError("target is longer than interval")
        return self


class Concurrency(Settings):
    """How many requests an upstream may hold at once, over one worker. Where min is max, it is fixed."""

    min: int = Field(4, ge=1)
    max: int = Field(400, ge=1)
    initial: int | None = Field(None, ge=1)  # left out: 100, or the bound nearest to it
    shares: Shares = Shares()
    floors: Floors = Floors()
    queue: Queue = Queue()

    @property
    def start(self) -> int:
        """The limit to begin with."""
        return min(max(100 if self.initial is None else self.initial, self.min), self.max)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        if self.initial is not None and not self.min <= self.initial <= self.max:
            raise ValueError(f"initial ({self.initial}) is not between min ({self.min}) and max ({self.max})")
        return self


class Retries(Settings):
    """Retries as a share of requests, so that they never multiply an outage."""

    budget: float = Field(0.2, ge=0, le=1)


class Health(Settings):
    """Active probes of each server."""

    path: str = Field("/readyz", pattern=r"^/[!-~]*$")
    interval: Duration = Field(2.0, ge=0.1)
    timeout: Duration = Field(1.0, gt=0)
    unhealthy_after: int = Field(3, ge=1)  # failed probes in a row
    healthy_after: int = Field(1, ge=1)  # good probes in a row


class Tls(Settings):
    """How https servers are verified."""

    verify: bool = True
    ca_file: InputFile | None = None
    server_name: str | None = None


def _server(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = urlsplit(value)
    try:
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        port_ok = False
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_ok:
        raise ValueError("not an upstream URL; write for example http://127.0.0.1:8100")
    if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username:
        raise ValueError("an upstream URL ends after host and port; paths are forwarded as received")
    return value.rstrip("/")


Server = Annotated[str, BeforeValidator(_server)]


class Upstream(Settings):
    """A service behind the gate."""

    servers: tuple[Server, ...] = Field(min_length=1)
    timeout: Timeout = Timeout()
    breaker: Breaker | None = None
    concurrency: Concurrency | None = None
    retries: Retries = Retries()
    health: Health | None = None
    tls: Tls = Tls()
    max_connections: int = Field(512, ge=1)  # per worker and server
    keep_alive: Duration = Field(4.0, ge=0)  # shorter than the upstream's own


# ---- what protects them ----------------------------------------------------------------------


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
        why = "it has host bits set" if "host bits" in str(error) else "neither network nor user"
        raise ValueError(f"{value!r}: {why}; write for example 10.0.0.0/8, 2001:db8::1 or user:42") from None
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

    rates: Rates = Field(alias="rate")  # by tier; a bare rate is that of all
    per: Annotated[
        tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v), Field(min_length=1)
    ]
    algorithm: Literal["sliding-window", "fixed-window", "token-bucket"] = "sliding-window"
    mode: Annotated[Literal["enforce", "shadow", "off"], BeforeValidator(_word)] = "enforce"
    on_store_failure: Literal["local", "allow", "refuse"] = "local"
    allow: tuple[Someone, ...] = ()  # whom it does not count
    deny: tuple[Someone, ...] = ()  # whom it refuses with 403, also when they are allowed by another entry

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


class Fallback(Settings):
    """What is answered in place of a feature that is off. One of json, text, file or empty."""

    json_: Any = Field(None, alias="json")
    text: str | None = None
    file: InputFile | None = None
    empty: bool = False
    status: int = Field(200, ge=200, le=599)
    content_type: str | None = Field(None, pattern=r"^[!-~ ]+$")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = self.model_fields_set & {"json_", "text", "file"} | ({"empty"} if self.empty else set())
        if len(given) != 1:
            raise ValueError("give exactly one of json, text, file or empty: true")
        return self


class Feature(Settings):
    """A part of the shop that can be switched off while the rest goes on."""

    # auto: the ladder decides
    state: Annotated[Literal["auto", "on", "off"], BeforeValidator(_word)] = "auto"
    fallback: Fallback | None = None


class Step(Settings):
    """A rung of the ladder; each adds to those before it."""

    name: Name
    off: tuple[Name, ...] = ()
    only: Literal["critical"] | None = None


class Climb(Settings):
    """Pressure that, held so long, moves the ladder one step up."""

    pressure: float = Field(0.8, gt=0)
    after: Duration = 3.0


class Descend(Settings):
    """Pressure below which, held so long, the ladder comes one step down."""

    pressure: float = Field(0.5, gt=0)
    after: Duration = 30.0


class Degradation(Settings):
    """The ladder: what is given up first, and when."""

    steps: tuple[Step, ...] = ()
    climb: Climb = Climb()
    descend: Descend = Descend()

    @model_validator(mode="after")
    def _hysteresis(self) -> Self:
        if self.descend.pressure >= self.climb.pressure:
            raise ValueError("descend.pressure must be below climb.pressure, else the ladder flaps")
        return self


def _pattern(value: str) -> str:
    pattern.parse(value)
    return value


class RouteCache(Settings):
    """What of a route's answers is kept. They say themselves whether and how long; these are the bounds."""

    ttl: Duration = Field(60.0, ge=0)  # served as fresh for at most so long, whatever they say
    stale_while_revalidate: Duration = 0.0  # for answers that don't say it
    stale_if_error: Duration = 60.0  # for answers that don't say it
    max_body: Size = Field(256 << 10, ge=1)  # larger ones pass through
    wait: Duration = Field(10.0, gt=0)  # for one who asks the same already; then on its own


class Route(Settings):
    """Which requests go where, and what is checked on the way. The first match wins."""

    match: Annotated[str, AfterValidator(_pattern)]
    methods: tuple[Annotated[str, Field(pattern=r"^[A-Z]{1,20}$")], ...] = ()
    hosts: tuple[Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9.-]{1,253}$")], ...] = ()  # or *.example.com
    upstream: str
    feature: str | None = None
    limits: tuple[str, ...] = ()
    cost: int = Field(1, ge=1)  # tokens that a request takes of each limit
    priority: Priority = "normal"
    cache: RouteCache | None = None
    shut: dict[Parameter, Literal["body"]] = {}  # parameters of Tidegate-Shut that stand in the JSON body


class Cache(Settings):
    """The memory of all routes' response caches."""

    max_bytes: Size = Field(64 << 20, ge=0)  # per worker; the least used answers go first


class AccessLog(Settings):
    """One JSON line per request, written by a thread of its own."""

    file: Annotated[Path | None, BeforeValidator(_none_when_empty)] = (
        None  # none: no log; "-": standard output
    )
    buffer: int = Field(10_000, ge=100)  # lines held while the disk is slow; then dropped and counted


class Config(Settings):
    """The whole file."""

    listen: Listen = Listen()
    admin: Admin = Admin()
    redis: Annotated[Redis | None, BeforeValidator(_absent_when_empty("url"))] = None
    identity: Identity = Identity()
    upstreams: dict[Name, Upstream] = Field(min_length=1)
    limits: dict[Name, Limit] = {}
    features: dict[Name, Feature] = {}
    degradation: Degradation = Degradation()
    routes: tuple[Route, ...] = Field(min_length=1)
    cache: Cache = Cache()
    access_log: AccessLog = AccessLog()
