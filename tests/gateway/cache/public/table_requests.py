"""Which request a kept answer fits, and what ends it: Vary, methods, parts, interim answers."""

from __future__ import annotations

from tests.gateway.cache.public.cases import Ask, Case, not_applicable

_LONG = "Cache-Control: max-age=100000"
_SHORT = "Cache-Control: max-age=2"
_LITERAL = "two requests are alike when the fields are, byte by byte: what they mean is the shop's to say"
_PARTS = "parts are neither kept nor cut: a range is answered by the upstream"
_HEAD = "allowed, not required (RFC 9111, 4.3.5); the next GET asks"
_OTHERS = "allowed, not required (RFC 9111, 4.4): an answer forgets its own target"


def _varied(
    name: str, vary: str | tuple[str, ...], first: str, second: str, *, kept: bool, why: str = ""
) -> Case:
    """Two requests, their fields `A: 1; B: 2`, and what the answer varies by."""
    lines = (vary,) if isinstance(vary, str) else vary
    says = ("Cache-Control: max-age=5000", "Last-Modified: @-3000", *(f"Vary: {line}" for line in lines))
    asks = (
        Ask("upstream", send=_split(first), says=says),
        Ask("cache" if kept else "upstream", send=_split(second)),
    )
    return Case(name, asks, why)


def _split(fields: str) -> tuple[str, ...]:
    return tuple(fields.split("; ")) if fields else ()


_AB = "Foo: 1; Bar: abc"
_ABC = "Foo: 1; Bar: abc; Baz: 789"
_AC = "Foo: 1; Baz: 789"
_EN_DE = "Accept-Language: en, de"
_FOO = ("Cache-Control: max-age=5000", "Last-Modified: @-3000", "Vary: Foo")

VARY = [
    _varied("vary-match", "Foo", "Foo: 1", "Foo: 1", kept=True),
    _varied("vary-no-match", "Foo", "Foo: 1", "Foo: 2", kept=False),
    _varied("vary-omit-stored", "Foo", "", "Foo: 1", kept=False),
    _varied("vary-omit", "Foo", "Foo: 1", "", kept=False),
    Case(
        "vary-invalidate",
        (
            Ask("upstream", send=("Foo: 1",), says=_FOO, body="one"),
            Ask("upstream", send=("Foo: 2",), says=_FOO, body="two"),
            Ask("cache", send=("Foo: 1",), body="one"),
        ),
    ),
    _varied("vary-cache-key", "Foo", "Foo: 1; Other: 2", "Foo: 1; Other: 3", kept=True),
    _varied("vary-2-match", "Foo, Bar", _AB, _AB, kept=True),
    _varied("vary-2-no-match", "Foo, Bar", _AB, "Foo: 2; Bar: abc", kept=False),
    _varied("vary-2-match-omit", "Foo, Bar", _AB, "", kept=False),
    _varied("vary-3-match", "Foo, Bar, Baz", _ABC, _ABC, kept=True),
    _varied("vary-3-no-match", "Foo, Bar, Baz", _ABC, "Foo: 2; Bar: abc; Baz: 789", kept=False),
    _varied("vary-3-order", "Foo, Bar, Baz", _ABC, "Foo: 1; Baz: 789; Bar: abcde", kept=False),
    _varied("vary-3-omit", "Foo, Bar, Baz", _AC, _AC, kept=True),
    _varied("vary-star", "*", _AC, _AC, kept=False),
    _varied("vary-normalise-combine", "Foo", "Foo: 1, 2", "Foo: 1; Foo: 2", kept=True),
    _varied(
        "vary-normalise-lang-order",
        "Accept-Language",
        _EN_DE,
        "Accept-Language: de, en",
        kept=False,
        why=_LITERAL,
    ),
    _varied(
        "vary-normalise-lang-case",
        "Accept-Language",
        _EN_DE,
        "Accept-Language: eN, De",
        kept=False,
        why=_LITERAL,
    ),
    _varied(
        "vary-normalise-lang-space",
        "Accept-Language",
        _EN_DE,
        "Accept-Language: en ,   de",
        kept=False,
        why=_LITERAL,
    ),
    _varied(
        "vary-normalise-lang-select",
        "Accept-Language",
        _EN_DE,
        "Accept-Language: fr;q=0.5, de;q=1.0",
        kept=False,
        why=_LITERAL,
    ),
    _varied("vary-normalise-space", "Foo", "Foo: 1,2", "Foo: 1, 2", kept=False, why=_LITERAL),
    _varied("vary-syntax-star", "*", _AC, _AC, kept=False),
    _varied("vary-syntax-star-star", "*, *", _AC, _AC, kept=False),
    _varied("vary-syntax-star-star-lines", ("*", "*"), _AC, _AC, kept=False),
    _varied("vary-syntax-empty-star", ", *", _AC, _AC, kept=False),
    _varied("vary-syntax-empty-star-lines", ("", "*"), _AC, _AC, kept=False),
    _varied("vary-syntax-star-foo", "*, Foo", _AC, _AC, kept=False),
    _varied("vary-syntax-foo-star", "Foo, *", _AC, _AC, kept=False),
    Case(
        "query-args-different",
        (Ask("upstream", says=(_LONG,), target="/x?a=1"), Ask("upstream", target="/x?a=2")),
    ),
    Case("query-args-same", (Ask("upstream", says=(_LONG,), target="/x?a=1"), Ask("cache", target="/x?a=1"))),
]


_KEPT_SHORT = Ask("upstream", says=(_SHORT, "A: 1"))
HEAD = [
    Case("head-writethrough", (_KEPT_SHORT, Ask("upstream", method="HEAD"))),
    Case("head-200-retain", (_KEPT_SHORT, Ask("upstream", method="HEAD", lacks=("A",))), _HEAD),
    Case(
        "head-200-freshness-update",
        (_KEPT_SHORT, Ask("upstream", method="HEAD", says=("Cache-Control: max-age=1000",)), Ask("upstream")),
        _HEAD,
    ),
    *(
        Case(
            name,
            (
                _KEPT_SHORT,
                Ask("upstream", method="HEAD", says=("A: 2", "Cache-Control: max-age=1000"), status=status),
                Ask("upstream"),
            ),
            _HEAD,
        )
        for name, status in (("head-200-update", 200), ("head-410-update", 410))
    ),
]

_KEPT_LONG = Ask("upstream", says=(_LONG,))
_METHODS = ("POST", "PUT", "DELETE", "M-SEARCH")
CHANGED = [
    *(
        Case(f"invalidate-{method}", (_KEPT_LONG, Ask("upstream", method=method), Ask("upstream")))
        for method in _METHODS
    ),
    *(
        Case(
            f"invalidate-{method}-failed",
            (_KEPT_LONG, Ask("upstream", method=method, status=500), Ask("cache")),
        )
        for method in _METHODS
    ),
    *(
        Case(
            f"invalidate-{method}-{name}",
            (
                Ask("upstream", says=(_LONG,), target="/other"),
                Ask("upstream", method=method, says=(f"{field}: http://shop.test/other",)),
                Ask("cache", target="/other"),
            ),
            _OTHERS,
        )
        for method in _METHODS
        for name, field in (("location", "Location"), ("cl", "Content-Location"))
    ),
]

PARTS = [
    *not_applicable(
        _PARTS,
        *(
            f"partial-{name}"
            for name in (
                *("store-partial-reuse-partial", "store-complete-reuse-partial"),
                *("store-complete-reuse-partial-no-last", "store-complete-reuse-partial-suffix"),
                *("store-partial-reuse-partial-byterange", "store-partial-reuse-partial-absent"),
                *("store-partial-reuse-partial-suffix", "store-partial-complete"),
                *("use-headers", "use-stored-headers"),
            )
        ),
    ),
]

INTERIM = [
    *not_applicable(
        "interim answers are for the gateway, and end there (RFC 9110, 15.2 lets a proxy drop them)",
        "interim-102",
        "interim-103",
        "interim-not-cached",
    ),
    Case(
        "interim-no-header-reuse",
        (
            Ask("upstream", says=(_LONG,), hints=("X-My-Header: test",), lacks=("X-My-Header",)),
            Ask("cache", lacks=("X-My-Header",)),
        ),
    ),
]

TABLE = [*VARY, *HEAD, *CHANGED, *PARTS, *INTERIM]
