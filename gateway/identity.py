"""Who is asking: the user of a verified token, and the address of the client behind trusted proxies."""

from __future__ import annotations

import time
from typing import Final

from gateway import config
from gateway.addresses import Networks, Proxies, parse
from gateway.errors import BadRequest
from gateway.exchange import Clock, Exchange
from gateway.fields import values
from gateway.tokens import Tokens

MAX_TOKENS: Final = 4  # in one request: each costs a verification
_NO_ADDRESS: Final = "unix"  # peers on a unix socket have none, and count as one


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
        address = exchange.address
        if self._proxies is not None or "." not in address or ":" in address:
            self._locate(exchange)  # else it is the socket's own words, IPv4, and the exchange has it so
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
        peer = parse(exchange.address)
        if peer is None:
            exchange.address, exchange.forwarded_for = _NO_ADDRESS, b"unknown"
            return
        chain = [peer]
        if self._proxies is not None and self._proxies.trusts(peer):
            chain = self._proxies.walk(peer, values(exchange.headers, b"x-forwarded-for"))
            schemes = values(exchange.headers, b"x-forwarded-proto")
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
