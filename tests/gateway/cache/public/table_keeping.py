"""What is kept at all, for whom, what of it, and what stands in for a failure."""

from __future__ import annotations

from tests.gateway.cache.public.cases import Ask, Case, asked, not_applicable, reused

_CLIENT = "a client's wish is advice (RFC 9111, 5.2.1): whoever likes could make the upstream work by it"
_ODD = "kept are the statuses that mean the same to everyone who asks"
_OURS = "never kept, whatever it says, unless it says public: the contract is stricter than the RFC"
_PRIVATE = "for caches of one browser; this one is shared"
_NO_CACHE = "no-cache is not kept: each use would cost the upstream a call all the same"
_HOUR = "Cache-Control: max-age=3600"
_LONG = "Cache-Control: max-age=100000"
_KEPT = Ask("upstream", says=(_LONG,))

CONTROL = [
    asked("cc-resp-private-shared", "Cache-Control: private, max-age=3600"),
    *not_applicable(
        _PRIVATE, "cc-resp-private-private", "cc-resp-immutable-fresh", "cc-resp-immutable-stale"
    ),
    asked("cc-resp-no-store", "Cache-Control: no-store"),
    asked("cc-resp-no-store-case-insensitive", "Cache-Control: No-StOrE"),
    asked("cc-resp-no-store-fresh", "Cache-Control: max-age=10000, no-store", "Expires: @10000"),
    *(
        Case(
            name,
            (
                Ask("upstream", says=("Cache-Control: max-age=10000", "Expires: @10000", "A: 1")),
                Ask("cache", says=(later, "A: 2"), has=("A: 1",)),
                Ask("cache", has=("A: 1",)),
            ),
        )
        for name, later in (
            ("cc-resp-no-store-old-new", "Cache-Control: no-store"),
            ("cc-resp-no-store-old-max-age", "Cache-Control: no-store, max-age=0"),
        )
    ),
    asked("cc-resp-no-cache", "Cache-Control: max-age=10000, no-cache", "Expires: @10000"),
    asked("cc-resp-no-cache-case-insensitive", "Cache-Control: max-age=10000, No-CaChE", "Expires: @10000"),
    asked("cc-resp-no-cache-revalidate", "Cache-Control: no-cache", 'ETag: "abcd"', why=_NO_CACHE),
    asked(
        "cc-resp-no-cache-revalidate-fresh",
        "Cache-Control: max-age=10000, no-cache",
        'ETag: "abcd"',
        why=_NO_CACHE,
    ),
    *(
        asked(name, f'Cache-Control: no-cache="{names}"', "a: 1", "b: 2", _HOUR, why=_NO_CACHE)
        for name, names in (
            ("headers-omit-headers-listed-in-Cache-Control-no-cache-single", "a"),
            ("headers-omit-headers-listed-in-Cache-Control-no-cache", "a, b"),
        )
    ),
    reused("cc-resp-must-revalidate-fresh", "Cache-Control: max-age=10000, must-revalidate", 'ETag: "abcd"'),
    Case(
        "cc-resp-must-revalidate-stale",
        (
            Ask("upstream", says=("Cache-Control: max-age=2, must-revalidate", 'ETag: "abcd"')),
            Ask("cache", pause=0),
            Ask("etag"),
        ),
    ),
]

_TWO_SECONDS = Ask("upstream", says=("Cache-Control: max-age=2",))
_SIE = Ask("upstream", says=("Cache-Control: max-age=2, stale-if-error=60",))
STALE = [
    Case("stale-close", (_TWO_SECONDS, Ask("stale", breaks=True))),
    Case("stale-503", (_TWO_SECONDS, Ask("stale", status=503, gets=200))),
    Case("stale-sie-close", (_SIE, Ask("stale", breaks=True))),
    Case("stale-sie-503", (_SIE, Ask("stale", status=503, gets=200))),
    Case(
        "stale-while-revalidate",
        (
            Ask("upstream", says=("Cache-Control: max-age=1, stale-while-revalidate=3600", 'ETag: "abc"')),
            Ask("cache"),
        ),
    ),
    Case(
        "stale-while-revalidate-window",
        (
            Ask("upstream", says=("Cache-Control: max-age=1, stale-while-revalidate=4", 'ETag: "abc"')),
            Ask("cache", says=("Cache-Control: no-cache", 'ETag: "def"')),
            Ask("upstream"),
        ),
    ),
    *(
        Case(
            f"stale-close-{word}",
            (Ask("upstream", says=(f"Cache-Control: max-age=2, {word}",)), Ask(breaks=True, gets=502)),
        )
        for word in ("must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=2")
    ),
    *(
        Case(
            name,
            (Ask("upstream", says=says), Ask("stale", breaks=True, lacks=("Warning",))),
            "Warning is obsolete (RFC 9111, 5.5); Cache-Status says it",
        )
        for name, says in (
            ("stale-warning-stored", ("Expires: @-50", "Last-Modified: @-100000")),
            ("stale-warning-become", ("Cache-Control: max-age=2",)),
        )
    ),
]

METHODS_AND_STATUSES = [
    Case(
        "method-POST",
        (
            Ask("upstream", method="POST", says=(_HOUR, "Content-Location: http://shop.test/x")),
            Ask("upstream"),
        ),
        "answers to POST are none to GET unless a shop means them so, and none here does",
    ),
    *(reused(f"status-{s}-fresh", _LONG, status=s) for s in (200, 203, 204, 301, 302, 307, 308, 404, 410)),
    *(
        asked(f"status-{s}-fresh", _LONG, status=s, why=_ODD)
        for s in (299, 303, 400, 499, 500, 502, 503, 504, 599)
    ),
    *(
        Case(
            f"status-{status}-stale",
            (
                Ask("upstream", says=("Expires: @-5000", "Last-Modified: @-100000"), status=status),
                Ask("upstream"),
            ),
        )
        for status in (
            200,
            203,
            204,
            299,
            301,
            302,
            303,
            307,
            308,
            400,
            404,
            410,
            499,
            500,
            502,
            503,
            504,
            599,
        )
    ),
    asked("status-599-must-understand", "Cache-Control: max-age=3600, no-store, must-understand", status=599),
    reused("status-200-must-understand", "Cache-Control: max-age=3600, no-store, must-understand"),
]


def _wish(name: str, wish: str, *says: str, ignored: bool = True) -> Case:
    """A client says how old an answer it wants."""
    by = "cache" if ignored else "upstream"
    return Case(name, (Ask("upstream", says=says), Ask(by, send=(wish,))), _CLIENT)


WISHES = [
    _wish("ccreq-ma0", "Cache-Control: max-age=0", _LONG),
    _wish("ccreq-ma1", "Cache-Control: max-age=1", _LONG),
    _wish("ccreq-magreaterage", "Cache-Control: max-age=600", _LONG, "Age: 1800"),
    _wish("ccreq-max-stale", "Cache-Control: max-stale=1000", "Cache-Control: max-age=2", ignored=False),
    _wish(
        "ccreq-max-stale-age",
        "Cache-Control: max-stale=1000",
        "Cache-Control: max-age=1500",
        "Age: 2000",
        ignored=False,
    ),
    _wish("ccreq-min-fresh", "Cache-Control: min-fresh=2000", "Cache-Control: max-age=1500"),
    _wish("ccreq-min-fresh-age", "Cache-Control: min-fresh=1000", "Cache-Control: max-age=1500", "Age: 1000"),
    _wish("ccreq-no-cache", "Cache-Control: no-cache", _HOUR),
    _wish("ccreq-no-cache-lm", "Cache-Control: no-cache", _HOUR, "Last-Modified: @-10000"),
    _wish("ccreq-no-cache-etag", "Cache-Control: no-cache", _HOUR, 'ETag: "a"'),
    _wish("ccreq-no-store", "Cache-Control: no-store", _LONG),
    Case("ccreq-oic", (Ask("upstream", send=("Cache-Control: only-if-cached",)),), _CLIENT),
    Case("pragma-request-no-cache", (_KEPT, Ask("cache", send=("Pragma: no-cache",)))),
    Case("pragma-request-extension", (_KEPT, Ask("cache", send=("Pragma: unrecognised-extension",)))),
    reused("pragma-response-no-cache", _HOUR, "Pragma: no-cache"),
    asked(
        "pragma-response-no-cache-heuristic",
        "Last-Modified: @-10000",
        "Pragma: no-cache",
        why="no guessing: what is not said to be fresh is asked for each time",
    ),
    reused("pragma-response-extension", _HOUR, "Pragma: unrecognised-extension"),
]


def _authorised(name: str, says: str, *, kept: bool, why: str = "") -> Case:
    first = Ask("upstream", send=("Authorization: FOO",), told=("Authorization: FOO",), says=(says,))
    return Case(name, (first, Ask("cache" if kept else "upstream")), why)


FOR_WHOM = [
    _authorised("other-authorization", _LONG, kept=False),
    _authorised("other-authorization-public", "Cache-Control: max-age=3600, public", kept=True),
    _authorised(
        "other-authorization-must-revalidate",
        "Cache-Control: max-age=3600, must-revalidate",
        kept=False,
        why=_OURS,
    ),
    _authorised("other-authorization-smaxage", "Cache-Control: s-maxage=3600", kept=False, why=_OURS),
    asked("other-set-cookie", _LONG, "Set-Cookie: a=b", why=_OURS),
    Case("other-cookie", (_KEPT, Ask("upstream", send=("Cookie: a=b",))), _OURS),
    asked(
        "other-heuristic-content-disposition-attachment",
        "Last-Modified: @-100000",
        "Content-Disposition: attachment; filename=example.txt",
        why="no guessing: what is not said to be fresh is asked for each time",
    ),
    reused(
        "other-fresh-content-disposition-attachment",
        _LONG,
        "Content-Disposition: attachment; filename=example.txt",
    ),
]


def _field(name: str, line: str, *, kept: bool = True) -> Case:
    """A field of what is kept: told again, or of one connection only."""
    has, lacks = ((line,), ()) if kept else ((), (line.partition(":")[0],))
    says = (line,) if line.startswith("Cache-Control") else (line, _HOUR)
    return Case(f"headers-store-{name}", (Ask("upstream", says=says), Ask("cache", has=has, lacks=lacks)))


FIELDS = [
    Case(
        "headers-omit-headers-listed-in-Connection",
        (
            Ask("upstream", says=(_LONG, "Connection: a, b", "a: 1", "b: 2", "c: 3")),
            Ask("cache", has=("c: 3",), lacks=("a", "b")),
        ),
    ),
    _field("Test-Header", "Test-Header: one"),
    _field("X-Test-Header", "X-Test-Header: two"),
    _field("Content-Foo", "Content-Foo: three"),
    _field("X-Content-Foo", "X-Content-Foo: four"),
    _field("Cache-Control", _HOUR),
    _field("Content-Encoding", "Content-Encoding: five"),
    _field("Content-Location", "Content-Location: /bar"),
    _field("Content-MD5", "Content-MD5: N7UdGUp1E+RbVvZSTy1R8g=="),
    _field("Content-Security-Policy", "Content-Security-Policy: default-src 'self' cdn.example.com"),
    _field("Content-Type", "Content-Type: text/plain;charset=utf-8"),
    _field("Clear-Site-Data", "Clear-Site-Data: cookies"),
    _field("ETag", 'ETag: "ghijkl"'),
    _field("Expires", "Expires: Mon, 11 Jan 2038 11:11:11 GMT"),
    _field("Public-Key-Pins", "Public-Key-Pins: six"),
    _field("Set-Cookie2", "Set-Cookie2: a=c"),
    _field("X-Frame-Options", "X-Frame-Options: sameorigin"),
    _field("X-XSS-Protection", "X-XSS-Protection: 1; mode=block"),
    *(
        _field(name, f"{name}: seven", kept=False)
        for name in (
            *("Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authentication-Info"),
            *("Proxy-Authorization", "Proxy-Connection", "TE", "Upgrade"),
        )
    ),
    *not_applicable(
        "the answer breaks HTTP/1.1's framing, and is refused with 502",
        "headers-store-Content-Length",
        "headers-store-Transfer-Encoding",
    ),
    *not_applicable("a Content-Range marks a part, and parts are not kept", "headers-store-Content-Range"),
    *not_applicable("an answer with Set-Cookie is never kept", "headers-store-Set-Cookie"),
]

TABLE = [*CONTROL, *STALE, *METHODS_AND_STATUSES, *WISHES, *FOR_WHOM, *FIELDS]
