"""Who is asking: the user of a verified token, and the address of the client behind trusted proxies."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple, TypeVar

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import get_default_algorithms

from gateway import config
from gateway.errors import BadRequest
from gateway.exchange import Clock, Exchange

MAX_TOKEN = 4096  # bytes; as long as a cookie may be
MAX_CACHED = 10_000  # verified tokens kept per worker
MAX_REFUSED = 1_000  # invalid ones, so that an old cookie is not verified with each request
REFUSED_FOR = 10.0  # seconds; its `nbf` may come
MAX_TIER = 64  # characters; what is longer is no tier's name
MAX_TOKENS = 4  # in one request: each costs a verification
MAX_HOPS = 32  # proxies believed in one X-Forwarded-For

_USER = re.compile(r"[!-~]{1,128}")  # goes into a header field: visible ASCII only
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)
_NO_ADDRESS = "unix"  # peers on a unix socket have none, and count as one

Address = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]
K = TypeVar("K")
V = TypeVar("V")
PublicKey = Ed25519PublicKey | RSAPublicKey | bytes


# ---- tokens ----------------------------------------------------------------------------------


def load_keys(settings: config.Jwt) -> dict[str, PublicKey]:
    """The keys that verify tokens, by key id (RFC 7638 thumbprint); several while one replaces another.

    A PEM file holds one public key after the other; a file for HS256 one secret a line.

    Raises:
        OSError: the file can't be read.
        ValueError: it holds no key for the algorithm, or one that is too weak.
    """
    raw = settings.key_file.read_bytes()
    where = f"{settings.key_file}"
    if settings.algorithm == "HS256":
        secrets = [line.strip() for line in raw.splitlines() if line.strip()]
        if not secrets or b"-----BEGIN" in raw:
            raise ValueError(f"{where}: HS256 takes a file with one secret a line, not a PEM key")
        if min(map(len, secrets)) < 32:
            raise ValueError(f"{where}: a secret for HS256 has 32 bytes or more (RFC 7518, 3.2)")
        return {hashlib.sha256(secret).hexdigest(): secret for secret in secrets}
    wanted = Ed25519PublicKey if settings.algorithm == "EdDSA" else RSAPublicKey
    keys: dict[str, PublicKey] = {}
    for block in _PEM.findall(raw):
        try:
            key = load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError(f"{where}: a key in it can't be read: {error}") from None
        if not isinstance(key, wanted):
            kind = wanted.__name__
            raise ValueError(f"{where}: {settings.algorithm} takes {kind}s only")  # noqa: TRY004 - of the file
        if isinstance(key, RSAPublicKey) and key.key_size < 2048:
            raise ValueError(f"{where}: an RSA key has 2048 bits or more (RFC 7518, 3.3)")
        assert isinstance(key, Ed25519PublicKey | RSAPublicKey)  # noqa: S101 - as `wanted` says, for mypy
        keys[thumbprint(key)] = key
    if not keys:
        raise ValueError(f"{where}: no PEM public key in it (-----BEGIN PUBLIC KEY-----)")
    return keys


def thumbprint(key: Ed25519PublicKey | RSAPublicKey) -> str:
    """The key's id: SHA-256 of its required JWK members (RFC 7638, 3; RFC 8037, 2), base64url."""
    algorithm = get_default_algorithms()["EdDSA" if isinstance(key, Ed25519PublicKey) else "RS256"]
    jwk = algorithm.to_jwk(key, as_dict=True)
    required = {name: jwk[name] for name in ("crv", "e", "kty", "n", "x") if name in jwk}
    canonical = json.dumps(required, sort_keys=True, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


class Bearer(NamedTuple):
    """Whom a token was issued to."""

    user: str
    tier: str | None  # what the token says of it; only names that a limit knows matter


class Tokens:
    """Verifies tokens, each once while it is valid and remembered."""

    def __init__(self, settings: config.Jwt, tier_claim: str, clock: Clock) -> None:
        self._tier_claim = tier_claim
        self._algorithm = settings.algorithm
        self._keys = load_keys(settings)
        self._clock = clock
        self._verified: OrderedDict[bytes, tuple[Bearer, float]] = OrderedDict()  # and expiry
        self._refused: OrderedDict[bytes, float] = OrderedDict()  # until

    def bearer(self, token: bytes) -> Bearer | None:
        """Whom a token was issued to; None when it is not valid now."""
        now = self._clock()
        known = self._verified.get(token)
        if known is not None:
            if known[1] > now:
                self._verified.move_to_end(token)
                return known[0]
            del self._verified[token]
            return None
        if len(token) > MAX_TOKEN or self._refused.get(token, 0.0) > now:
            return None
        verified = self._verify(token, now)
        if verified is None:
            _remember(self._refused, token, now + REFUSED_FOR, MAX_REFUSED)
            return None
        _remember(self._verified, token, verified, MAX_CACHED)
        return verified[0]

    def _verify(self, token: bytes, now: float) -> tuple[Bearer, float] | None:
        for key in self._candidates(token):
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=[self._algorithm],
                    # Times are checked below, on our clock. `aud` means another service (RFC 7519, 4.1.3).
                    options={
                        "require": ["exp", "sub"],
                        "verify_exp": False,
                        "verify_nbf": False,
                        "verify_iat": False,
                    },
                )
            # Unsigned input reaches the JSON parser: any nesting, any number.
            except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
                continue
            user, expiry, begin = claims["sub"], claims["exp"], claims.get("nbf", 0)
            if not (isinstance(user, str) and _USER.fullmatch(user)):
                return None
            if not (_is_time(expiry) and _is_time(begin) and begin <= now < expiry):
                return None
            tier = claims.get(self._tier_claim)
            tier = tier if isinstance(tier, str) and len(tier) <= MAX_TIER else None
            return Bearer(user, tier), float(expiry)
        return None

    def _candidates(self, token: bytes) -> Sequence[PublicKey]:
        """The key that the token names; else every key: they are few, and a key id is only a hint."""
        if len(self._keys) > 1:
            try:
                named = self._keys.get(jwt.get_unverified_header(token).get("kid", ""))
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
                return ()
            if named is not None:
                return (named,)
        return tuple(self._keys.values())


def _is_time(value: object) -> bool:
    # Bounded, so that it is a number of seconds and no infinity.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12


def _remember(cache: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    cache[key] = value
    if len(cache) > most:
        cache.popitem(last=False)


# ---- addresses -------------------------------------------------------------------------------


@lru_cache(maxsize=8192)
def _parse(text: str) -> Address | None:
    """An address as proxies write it: bare, or with a port; IPv4 also when mapped into IPv6."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class Proxies:
    """Which peers may speak for a client."""

    def __init__(self, trusted: Networks) -> None:
        self._trusted = tuple(trusted)
        self._known: OrderedDict[Address, bool] = OrderedDict()

    def trusts(self, address: Address) -> bool:
        """Whether a peer's X-Forwarded fields are believed."""
        known = self._known.get(address)
        if known is None:
            known = any(address in network for network in self._trusted)
            _remember(self._known, address, known, 4096)
        return known

    def walk(self, peer: Address, fields: Sequence[bytes]) -> list[Address]:
        """The chain from client to peer, each told by a trusted hop; entries beyond it may be forged."""
        chain = [peer]
        entries = b",".join(fields).split(b",") if fields else []
        for entry in reversed(entries[-MAX_HOPS:]):
            if not self.trusts(chain[0]):
                break
            address = _parse(entry.strip(b" \t").decode("latin-1"))
            if address is None:
                break  # garbage: the hop that sent it is the last one known
            chain.insert(0, address)
        return chain


# ---- both ------------------------------------------------------------------------------------


class Identity:
    """Finds out who is asking.

    Args:
        settings: where a request says it.
        trusted_proxies: peers whose X-Forwarded-For and -Proto are believed.
        clock: seconds since the epoch.

    Raises:
        OSError: the key file can't be read.
        ValueError: it holds no usable key.
    """

    def __init__(
        self, settings: config.Identity, trusted_proxies: Networks, *, clock: Clock = time.time
    ) -> None:
        self._tokens = Tokens(settings.jwt, settings.tier_claim, clock) if settings.jwt is not None else None
        self._header = settings.header.lower().encode() if settings.header is not None else None
        self._cookie = settings.cookie.encode() if settings.cookie is not None else None
        self._proxies = Proxies(trusted_proxies) if trusted_proxies else None

    def identify(self, exchange: Exchange) -> None:
        """Set `user`, `tier`, `address`, `forwarded_for` and `scheme`.

        A token that is not valid leaves its sender anonymous. Of several, those that are valid must name
        one user: which of them the upstream goes by is its own affair, so another answer here would count
        one user's requests as another's. `exchange.address` is the peer's on entry, "" for one without.

        Raises:
            BadRequest: the tokens name different users, or are too many.
        """
        self._locate(exchange)
        tokens = self._tokens
        if tokens is None:
            return
        found = self._candidates(exchange)
        if len(found) == 1:
            if (bearer := tokens.bearer(found[0])) is not None:
                exchange.user, exchange.tier = bearer
        elif found:
            if len(found) > MAX_TOKENS:
                raise BadRequest(f"{len(found)} tokens came; send one")
            bearers = [bearer for token in found if (bearer := tokens.bearer(token)) is not None]
            if len({bearer.user for bearer in bearers}) > 1:
                raise BadRequest("the tokens name different users; send one, as cookie or as bearer")
            if bearers:
                # One user's older token may say another tier. Either could have come alone.
                exchange.user, exchange.tier = bearers[0]

    def _locate(self, exchange: Exchange) -> None:
        if self._proxies is None and "." in exchange.address and ":" not in exchange.address:
            exchange.forwarded_for = exchange.address.encode()  # the socket's own words, IPv4
            return
        peer = _parse(exchange.address)
        if peer is None:
            exchange.address, exchange.forwarded_for = _NO_ADDRESS, b"unknown"
            return
        chain = [peer]
        if self._proxies is not None and self._proxies.trusts(peer):
            headers = exchange.headers
            chain = self._proxies.walk(peer, [v for n, v in headers if n == b"x-forwarded-for"])
            schemes = [v for n, v in headers if n == b"x-forwarded-proto"]
            # The nearest proxy wrote the last word.
            scheme = schemes[-1].rpartition(b",")[2].strip().lower() if schemes else b""
            if scheme in {b"http", b"https"}:
                exchange.scheme = scheme.decode()
        exchange.address = str(chain[0])
        exchange.forwarded_for = ", ".join(map(str, chain)).encode()

    def _candidates(self, exchange: Exchange) -> list[bytes]:
        """Every token the request carries, wherever it stands; each once."""
        header, cookie = self._header, self._cookie
        found: list[bytes] = []
        for name, value in exchange.headers:
            if name == header:
                scheme, space, rest = value.partition(b" ")
                if space and scheme.lower() == b"bearer":
                    found.append(rest.strip(b" "))
                elif header != b"authorization":
                    found.append(value)
            elif name == b"cookie" and cookie is not None and cookie in value:
                for pair in value.split(b";"):
                    # As upstreams read it: blanks around name and value don't count.
                    key, equals, token = pair.partition(b"=")
                    if equals and key.strip() == cookie:
                        if b"\\" in token:  # some upstreams undo escapes in quoted values; tokens have none
                            raise BadRequest(f"the cookie {cookie.decode()} has an escape in it")
                        found.append(token.strip().strip(b'"'))
        return found if len(found) < 2 else list(dict.fromkeys(found))
