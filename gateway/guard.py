"""What HTTP must never pass: doubtful framing, Host, targets and sizes; and the path that policies match.

The server's parser refuses much already (bare LF, obs-fold, bad chunks); here stands what it lets through,
and what it may one day let through. Section numbers are those of RFC 9112 unless another is named.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from gateway.config import Listen
from gateway.errors import BadRequest, HeadersTooLarge, NotImplementedHere, PayloadTooLarge, UriTooLong
from gateway.exchange import Exchange, Headers

TARGET = "tidegate.target"  # in the scope: the request target exactly as received
REFUSAL = "tidegate.refusal"  # in the scope: why the request could not even be read

_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  # RFC 9110, 5.6.2
_FIELD = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])  # RFC 9110, 5.5
_VISIBLE = re.compile(rb"[!-~]+")
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_NOTABLE = frozenset({b"host", b"content-length", b"transfer-encoding", b"upgrade"})
_DEFAULT_PORT = {b"http": b":80", b"https": b":443"}

# A segment of a clean path begins and ends with a character that no server reads in two ways.
_CLEAN = re.compile(
    rb"/|(?:/[A-Za-z0-9_~!$&'()*+,=:@-](?:[A-Za-z0-9_~!$&'()*+,=:@.-]*[A-Za-z0-9_~!$&'()*+,=:@-])?)+"
)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})|%[01][0-9A-Fa-f]|%7[Ff]")  # none at all, or of a control
_SECOND_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")  # one that is left after decoding once


def inspect(scope: dict[str, Any], listen: Listen, exchange: Exchange) -> None:
    """Vet a request and write what it is into the exchange: method, target, path, host, length, body.

    Args:
        scope: an ASGI http scope; names of header fields in lower case. `TARGET` in it is the target as
            received; without it, absolute-form and fragments are the server's to refuse.
        listen: the sizes that are allowed.
        exchange: filled in place.

    Raises:
        BadRequest: it breaks HTTP, or could be read in two ways.
        UriTooLong: the target is longer than `listen.max_target`.
        HeadersTooLarge: more or longer header fields than allowed.
        PayloadTooLarge: it announces more than `listen.max_body` bytes.
        GatewayError: whatever the server found when it read the request.
        NotImplementedHere: TRACE, CONNECT, an upgrade, another transfer coding, `OPTIONS *`.
    """
    if REFUSAL in scope:
        raise scope[REFUSAL]
    headers: Headers = scope["headers"]
    old = scope["http_version"] == "1.0"
    if not old and scope["http_version"] != "1.1":
        raise BadRequest("speak HTTP/1.1 or HTTP/1.0")
    method: str = scope["method"]
    if method in {"TRACE", "CONNECT"}:  # RFC 9110, 9.1: known, but implemented for no target
        raise NotImplementedHere(f"{method} is not carried here")
    if not _METHOD.fullmatch(method):
        raise BadRequest("the method is no token")
    notable = _fields(headers, listen)
    host = _host(notable.get(b"host"))
    target: bytes | None = scope.get(TARGET)
    if target is None:
        query: bytes = scope["query_string"]
        target = scope["raw_path"] + b"?" + query if query else scope["raw_path"]
    exchange.target = target  # for the log, should it be refused
    if len(target) > listen.max_target:
        raise UriTooLong(f"the target has {len(target)} bytes; {listen.max_target} are taken")
    target = _origin_form(target, method, host)
    if b"upgrade" in notable:
        raise NotImplementedHere("no upgrade (WebSocket, h2c) is carried here")
    length, chunked = _framing(notable, old=old)
    if length is not None and length > listen.max_body:
        raise PayloadTooLarge(f"the body has {length} bytes; {listen.max_body} are taken")

    exchange.method = method
    exchange.target = target
    exchange.path = normalise(target.partition(b"?")[0])
    exchange.host = host
    exchange.content_length = length
    exchange.has_body = chunked or bool(length)
    exchange.max_body = listen.max_body


# ---- header fields ---------------------------------------------------------------------------


def _fields(headers: Headers, listen: Listen) -> dict[bytes, list[bytes]]:
    """The fields that decide about framing and routing, with all their values."""
    if len(headers) > listen.max_headers:
        raise HeadersTooLarge(f"{len(headers)} header fields came; {listen.max_headers} are taken")
    names = b"".join([name for name, _ in headers])
    values = b"".join([value for _, value in headers])
    # As on the wire: each field has a colon, a space and a line end.
    if len(names) + len(values) + 4 * len(headers) > listen.max_header_bytes:
        raise HeadersTooLarge(f"the header fields have more than {listen.max_header_bytes} bytes")
    if names.translate(None, _TOKEN):
        raise BadRequest("a header field's name has a character that is not allowed there")
    if values.translate(None, _FIELD):
        raise BadRequest("a header field's value has a control character")
    notable: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _NOTABLE:
            notable.setdefault(name, []).append(value)
        elif not name:
            raise BadRequest("a header field has no name")
    return notable


def _host(values: list[bytes] | None) -> bytes:
    """The one Host (3.2); of HTTP/1.0 too, since routes go by it."""
    if values is None:
        raise BadRequest("the Host field is missing")
    if len(values) > 1:
        raise BadRequest("the Host field is repeated")
    if not valid_host(values[0]):
        raise BadRequest("the Host field is no host name with an optional, valid port")
    return values[0]


@lru_cache(maxsize=256)
def valid_host(host: bytes) -> bool:
    """Whether a Host field's value is a host name or address with an optional port (3.2)."""
    match = _HOST.fullmatch(host)
    return match is not None and int(match[1] or 0) <= 65535


def _framing(notable: dict[bytes, list[bytes]], *, old: bool) -> tuple[int | None, bool]:
    """Announced length, or whether the body is chunked (6.1 to 6.3); never two ways to see its end."""
    lengths, codings = notable.get(b"content-length"), notable.get(b"transfer-encoding")
    if codings is not None:
        if old:
            raise BadRequest("HTTP/1.0 has no Transfer-Encoding")
        if lengths is not None:
            raise BadRequest("Content-Length and Transfer-Encoding came together")
        if len(codings) > 1:
            raise BadRequest("the Transfer-Encoding field is repeated")
        listed = [coding.strip(b" \t").lower() for coding in codings[0].split(b",")]
        if listed[-1] != b"chunked" or listed.count(b"chunked") > 1 or b"" in listed:
            raise BadRequest("the Transfer-Encoding does not end in one `chunked`")
        if len(listed) > 1:
            raise NotImplementedHere("no transfer coding but `chunked` is carried here")
        return None, True
    if lengths is None:
        return None, False
    if len(lengths) > 1:
        raise BadRequest("the Content-Length field is repeated")
    if not lengths[0].isdigit():
        raise BadRequest("the Content-Length is no number")
    if len(lengths[0]) > 18:
        raise PayloadTooLarge("the body is announced as larger than any we take")
    return int(lengths[0]), False


# ---- the target ------------------------------------------------------------------------------


def _origin_form(target: bytes, method: str, host: bytes) -> bytes:
    """The target as an origin server wants it (3.2); unchanged unless it is in absolute-form."""
    if not _VISIBLE.fullmatch(target):
        raise BadRequest("the target has a space, a control character or raw non-ASCII; percent-encode it")
    if b"#" in target:
        raise BadRequest("the target has a fragment")
    if target.startswith(b"/"):
        return target
    if target == b"*":
        if method == "OPTIONS":
            raise NotImplementedHere("OPTIONS * asks about the whole server; ask about a path")
        raise BadRequest("the target * is for OPTIONS only")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise BadRequest("the target is no path; it begins with / or http://")
    scheme, authority, rest = absolute[1].lower(), absolute[2].lower(), absolute[3]
    default = _DEFAULT_PORT[scheme]
    if authority.removesuffix(default) != host.lower().removesuffix(default):
        raise BadRequest("the target names another host than the Host field")
    return rest if rest.startswith(b"/") else b"/" + rest


def normalise(path: bytes) -> str:
    r"""The one form in which policies match a path, whichever way it is spelled.

    Percent-escapes are decoded, as UTF-8; `\` is `/`; parameters (`;x`), empty segments, `.` and a trailing
    slash go; `..` takes its parent away. Quoting the result and normalising it again changes nothing.

    Args:
        path: begins with `/`; no query.

    Raises:
        BadRequest: a bad escape, an escaped control character, anything escaped twice, bytes that are no
            UTF-8 (overlong forms too), or a climb above the root.
    """
    if _CLEAN.fullmatch(path):
        return path.decode("ascii")
    if _BAD_ESCAPE.search(path):
        raise BadRequest("the path has an invalid percent-escape, or one of a control character")
    try:
        text = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise BadRequest("the path's percent-escapes are no UTF-8") from None
    if _SECOND_ESCAPE.search(text):  # a server that decodes twice would see another path
        raise BadRequest("the path is percent-encoded twice")
    segments: list[str] = []
    for raw in text.replace("\\", "/").split("/"):
        segment = raw.partition(";")[0]
        if segment == "..":
            if not segments:
                raise BadRequest("the path climbs above the root")
            segments.pop()
        elif segment not in {"", "."}:
            segments.append(segment)
    return "/" + "/".join(segments)
