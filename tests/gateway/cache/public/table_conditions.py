"""Whether what is kept still holds: the client's conditions, ours, and what a 304 changes."""

from __future__ import annotations

from tests.gateway.cache.public.cases import Ask, Case, not_applicable

_LONG = "Cache-Control: max-age=100000"
_SHORT = "Cache-Control: max-age=2"
_WHOLE = "we ask for the whole answer, which others wait for, and judge the client's condition ourselves"
_BODY = "it describes the body that is kept, which a 304 does not change (RFC 9111, 3.2)"


def _condition(
    name: str, kept: str, given: str, *, gets: int = 304, has: tuple[str, ...] = (), why: str = ""
) -> Case:
    """A fresh answer with a validator, and a client that has one."""
    return Case(
        name, (Ask("upstream", says=(_LONG, kept)), Ask("cache", send=(given,), gets=gets, has=has)), why
    )


_TAG = 'ETag: "abcdef"'
CONDITIONS = [
    _condition("conditional-lm-fresh", "Last-Modified: @-3000", "If-Modified-Since: @-3000"),
    _condition("conditional-lm-fresh-earlier", "Last-Modified: @-3000", "If-Modified-Since: @-2000"),
    Case(
        "conditional-lm-stale",
        (
            Ask("upstream", says=(_SHORT, "Last-Modified: @-3000")),
            Ask("date", send=("If-Modified-Since: @-3000",), gets=304),
        ),
    ),
    _condition(
        "conditional-lm-fresh-no-lm",
        "A: 1",
        "If-Modified-Since: @-3000",
        gets=200,
        why="without a Last-Modified there is nothing to compare with but a Date, and that is later",
    ),
    _condition("conditional-lm-fresh-rfc850", "Last-Modified: @-3000", "If-Modified-Since: @850:-3000"),
    _condition("conditional-etag-strong-respond", _TAG, 'If-None-Match: "abcdef"'),
    _condition("conditional-304-etag", _TAG, 'If-None-Match: "abcdef"', has=(_TAG,)),
    Case(
        "conditional-etag-precedence",
        (
            Ask("upstream", says=(_LONG, "Last-Modified: @-5000", _TAG)),
            Ask("cache", send=('If-None-Match: "abcdef"', "If-Modified-Since: @-10000"), gets=304),
        ),
    ),
    _condition(
        "conditional-etag-strong-respond-obs-text",
        'ETag: "abcdef\u00fc"',
        'If-None-Match: "abcdef\u00fc"',
        has=('ETag: "abcdef\u00fc"',),
    ),
    _condition(
        "conditional-etag-quoted-respond-unquoted",
        _TAG,
        "If-None-Match: abcdef",
        gets=200,
        why="no entity tag: it has no quotes",
    ),
    _condition("conditional-etag-unquoted-respond-unquoted", "ETag: abcdef", "If-None-Match: abcdef"),
    _condition(
        "conditional-etag-unquoted-respond-quoted",
        "ETag: abcdef",
        'If-None-Match: "abcdef"',
        gets=200,
        why="the upstream's tag is none, and is taken as it is",
    ),
    _condition("conditional-etag-weak-respond", 'ETag: W/"abcdef"', 'If-None-Match: W/"abcdef"'),
    _condition("conditional-etag-weak-respond-lowercase", 'ETag: w/"abcdef"', 'If-None-Match: w/"abcdef"'),
    _condition("conditional-etag-weak-respond-backslash", 'ETag: W\\"abcdef"', 'If-None-Match: W\\"abcdef"'),
    _condition("conditional-etag-weak-respond-omit-slash", 'ETag: W"abcdef"', 'If-None-Match: W"abcdef"'),
    _condition(
        "conditional-etag-strong-respond-multiple-first", _TAG, 'If-None-Match: "abcdef", "1234", "5678"'
    ),
    _condition(
        "conditional-etag-strong-respond-multiple-second", _TAG, 'If-None-Match: "1234", "abcdef", "5678"'
    ),
    _condition(
        "conditional-etag-strong-respond-multiple-last", _TAG, 'If-None-Match: "1234", "5678", "abcdef"'
    ),
    Case(
        "conditional-etag-vary-headers",
        (
            Ask("upstream", send=("Abc: 123",), says=("Expires: @1", _TAG, "Vary: Abc")),
            Ask("etag", send=("Abc: 123",), told=("Abc: 123",)),
        ),
    ),
    Case(
        "conditional-etag-vary-headers-mismatch",
        (
            Ask("upstream", send=("Abc: 123",), says=("Expires: @10000", _TAG, "Vary: Abc")),
            Ask("upstream", send=("Abc: 456",), told=("If-None-Match: ",)),
        ),
        "variants are kept apart; the tags of one say nothing of another",
    ),
    *(
        Case(
            name,
            (Ask("upstream", says=(_SHORT, f"ETag: {tag}")), Ask("etag", told=(f"If-None-Match: {tag}",))),
            why,
        )
        for name, tag, why in (
            ("conditional-etag-strong-generate", '"abcdef"', ""),
            ("conditional-etag-weak-generate-weak", 'W/"abcdef"', ""),
            ("conditional-etag-strong-generate-unquoted", "abcdef", "sent back as the upstream wrote it"),
        )
    ),
    *(
        Case(name, (Ask("upstream", send=(f"If-None-Match: {tag}",), told=("If-None-Match: ",)),), _WHOLE)
        for name, tag in (
            ("conditional-etag-forward", '"abcdef"'),
            ("conditional-etag-forward-unquoted", "abcdef"),
        )
    ),
]


def _renewed(name: str, old: str, new: str, *, taken: bool = True, why: str = "") -> Case:
    """A 304 brings a field's new value: told from then on, or not."""
    tag, control = 'ETag: "t"', () if name == "Cache-Control" else (_SHORT,)
    has = (f"{name}: {new if taken else old}",)
    first = Ask("upstream", says=(f"{name}: {old}", *control, tag))
    again = Ask("etag", says=(f"{name}: {new}", *control, tag), has=has)
    return Case(f"304-etag-update-response-{name}", (first, again, Ask("cache", has=has, pause=1)), why)


RENEWED = [
    Case(
        "304-lm-use-stored-Test-Header",
        (
            Ask("upstream", says=(_SHORT, "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT", "Test-Header: a")),
            Ask("date", says=("Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT",), has=("Test-Header: a",)),
        ),
    ),
    *(
        _renewed(name, "one", "two")
        for name in ("Test-Header", "X-Test-Header", "Content-Foo", "X-Content-Foo")
    ),
    _renewed("Cache-Control", "max-age=1", "max-age=3600"),
    _renewed("Content-Encoding", "one", "two", taken=False, why=_BODY),
    _renewed("Content-Length", "1", "10", taken=False),
    _renewed("Content-Location", "/foo", "/bar"),
    _renewed("Content-MD5", "rL0Y20zC+Fzt72VPzMSk2A==", "N7UdGUp1E+RbVvZSTy1R8g=="),
    _renewed("Content-Security-Policy", "default-src 'self'", "default-src 'self' cdn.example.com"),
    _renewed("Content-Type", "text/plain", "text/plain;charset=utf-8", taken=False, why=_BODY),
    _renewed("Clear-Site-Data", "cache", "cookies"),
    Case(
        "304-etag-update-response-ETag",
        (
            Ask("upstream", says=(_SHORT, 'ETag: "abcdef"'), body="old"),
            Ask("etag", says=(_SHORT, 'ETag: "ghijkl"'), gets=200, has=('ETag: "ghijkl"',), body="new"),
        ),
        "a 304 with another tag speaks of something else: we ask for that",
    ),
    _renewed("Expires", "Fri, 01 Jan 2038 01:01:01 GMT", "Mon, 11 Jan 2038 11:11:11 GMT"),
    _renewed("Public-Key-Pins", "one", "two"),
    _renewed("Set-Cookie2", "a=b", "a=c"),
    _renewed("X-Frame-Options", "deny", "sameorigin"),
    _renewed("X-XSS-Protection", "1", "1; mode=block"),
    *not_applicable("an answer with Set-Cookie is never kept", "304-etag-update-response-Set-Cookie"),
    *not_applicable(
        "a Content-Range marks a part, and parts are not kept", "304-etag-update-response-Content-Range"
    ),
]

TABLE = [*CONDITIONS, *RENEWED]
