"""For how long an answer is fresh: Cache-Control, Expires, Age and Date, whole and spoilt."""

from __future__ import annotations

from tests.gateway.cache.public.cases import Ask, Case, asked, not_applicable, reused

_DOUBT = "two lifetimes, or none that can be read: the shorter, or none, is the safe one"
_PRIVATE = "for caches of one browser; this one is shared"
_GUESS = "no guessing: what is not said to be fresh is asked for each time"
_CDN = "CDN-Cache-Control (RFC 9213) is not ours to obey, and passes on to those for whom it is"
_HOUR = "Cache-Control: max-age=3600"

CONTROL = [
    asked("freshness-none"),
    reused("freshness-max-age", _HOUR),
    asked("freshness-max-age-stale", "Cache-Control: max-age=2"),
    asked("freshness-max-age-0", "Cache-Control: max-age=0"),
    reused("freshness-max-age-max-minus-1", "Cache-Control: max-age=2147483647"),
    reused("freshness-max-age-max", "Cache-Control: max-age=2147483648"),
    reused("freshness-max-age-max-plus-1", "Cache-Control: max-age=2147483649"),
    reused("freshness-max-age-max-plus", "Cache-Control: max-age=99999999999"),
    asked("freshness-max-age-age", _HOUR, "Age: 7200"),
    asked("freshness-max-age-date", "Date: @-7200", _HOUR),
    reused("freshness-max-age-expires", _HOUR, "Expires: @-7200"),
    reused("freshness-max-age-expires-invalid", _HOUR, "Expires: 0"),
    asked("freshness-max-age-0-expires", "Expires: @3600", "Cache-Control: max-age=0"),
    reused("freshness-max-age-extension", "Cache-Control: foobar, max-age=3600"),
    reused("freshness-max-age-case-insenstive", "Cache-Control: MaX-aGe=3600"),
    asked("freshness-max-age-negative", "Cache-Control: max-age=-3600"),
    *not_applicable(
        _PRIVATE, "freshness-max-age-s-maxage-private", "freshness-max-age-s-maxage-private-multiple"
    ),
    reused("freshness-s-maxage-shared", "Cache-Control: s-maxage=3600"),
    asked("freshness-max-age-s-maxage-shared-longer", "Cache-Control: max-age=3600, s-maxage=1"),
    asked("freshness-max-age-s-maxage-shared-longer-reversed", "Cache-Control: s-maxage=1, max-age=3600"),
    asked("freshness-max-age-s-maxage-shared-longer-multiple", _HOUR, "Cache-Control: s-maxage=1"),
    reused("freshness-max-age-s-maxage-shared-shorter", "Cache-Control: max-age=1, s-maxage=3600"),
    reused(
        "freshness-max-age-s-maxage-shared-shorter-expires",
        "Expires: @-10",
        "Cache-Control: max-age=0, s-maxage=3600",
    ),
]

CONTROL_SPOILT = [
    asked("freshness-max-age-two-fresh-stale-sameline", "Cache-Control: max-age=1800, max-age=1", why=_DOUBT),
    asked(
        "freshness-max-age-two-fresh-stale-sepline",
        "Cache-Control: max-age=1800",
        "Cache-Control: max-age=1",
        why=_DOUBT,
    ),
    asked("freshness-max-age-two-stale-fresh-sameline", "Cache-Control: max-age=1, max-age=1800", why=_DOUBT),
    asked(
        "freshness-max-age-two-stale-fresh-sepline",
        "Cache-Control: max-age=1",
        "Cache-Control: max-age=1800",
        why=_DOUBT,
    ),
    reused("freshness-max-age-quoted", 'Cache-Control: max-age="3600"'),
    asked("freshness-max-age-ignore-quoted", 'Cache-Control: extension="max-age=3600", max-age=1'),
    asked("freshness-max-age-ignore-quoted-rev", 'Cache-Control: max-age=1, extension="max-age=3600"'),
    asked("freshness-max-age-space-before-equals", "Cache-Control: max-age =3600"),
    asked("freshness-max-age-space-after-equals", "Cache-Control: max-age= 3600"),
    reused("freshness-max-age-leading-zero", "Cache-Control: max-age=003600"),
    asked("freshness-max-age-single-quoted", "Cache-Control: max-age='3600'"),
    asked("freshness-max-age-decimal-zero", "Cache-Control: max-age=3600.0", why=_DOUBT),
    asked("freshness-max-age-decimal-five", "Cache-Control: max-age=3600.5", why=_DOUBT),
    asked("freshness-max-age-a100", "Cache-Control: max-age=a3600", why=_DOUBT),
    asked("freshness-max-age-100a", "Cache-Control: max-age=3600a", why=_DOUBT),
]

AGE = [
    reused("age-parse-nonnumeric", _HOUR, "Age: abc"),
    reused("age-parse-negative", _HOUR, "Age: -7200"),
    reused("age-parse-float", _HOUR, "Age: 7200.0"),
    asked("age-parse-large-minus-one", _HOUR, "Age: 2147483647"),
    asked("age-parse-large", _HOUR, "Age: 2147483648"),
    asked("age-parse-larger", _HOUR, "Age: 2147483649"),
    asked("age-parse-suffix", _HOUR, "Age: 7200, 0"),
    reused("age-parse-prefix", _HOUR, "Age: 0, 7200"),
    asked("age-parse-suffix-twoline", _HOUR, "Age: 7200", "Age: 0"),
    reused("age-parse-prefix-twoline", _HOUR, "Age: 0", "Age: 7200"),
    reused("age-parse-dup-0", _HOUR, "Age: 0, 0"),
    reused("age-parse-dup-0-twoline", _HOUR, "Age: 0", "Age: 0"),
    reused("age-parse-dup-old", "Cache-Control: max-age=10000", "Age: 3600", "Age: 3600"),
    reused("age-parse-parameter", _HOUR, "Age: 7200;foo=bar", why="no number, so no age (RFC 9111, 5.1)"),
    reused("age-parse-numeric-parameter", _HOUR, "Age: 7200;foo=111", why="the same"),
]

EXPIRES = [
    reused("freshness-expires-future", "Expires: @2592000"),
    asked("freshness-expires-past", "Expires: @-2592000"),
    asked("freshness-expires-present", "Expires: @0"),
    asked("freshness-expires-old-date", "Expires: @300", "Date: @400"),
    asked("freshness-expires-invalid", "Expires: 0"),
    reused("freshness-expires-invalid-date", "Date: foo", "Expires: @10"),
    asked("freshness-expires-age-slow-date", "Date: @-10", "Expires: @10", "Age: 25"),
    asked("freshness-expires-age-fast-date", "Date: @10", "Expires: @20", "Age: 15"),
    reused("freshness-expires-32bit", "Expires: Tue, 19 Jan 2038 14:14:08 GMT"),
    reused("freshness-expires-far-future", "Expires: Sun, 21 Nov 2286 04:46:39 GMT"),
    reused("freshness-expires-rfc850", "Expires: Thursday, 18-Aug-50 02:01:18 GMT"),
    reused("freshness-expires-ansi-c", "Expires: Thu Aug  8 02:01:18 2050"),
    reused("freshness-expires-wrong-case-weekday", "Expires: THU, 18 Aug 2050 02:01:18 GMT"),
    reused("freshness-expires-wrong-case-month", "Expires: Thu, 18 AUG 2050 02:01:18 GMT"),
    reused("freshness-expires-wrong-case-tz", "Expires: Thu, 18 Aug 2050 02:01:18 gMT"),
    asked("freshness-expires-invalid-utc", "Expires: Thu, 18 Aug 2050 02:01:18 UTC"),
    asked("freshness-expires-invalid-aest", "Expires: Thu, 18 Aug 2050 02:01:18 AEST"),
    asked("freshness-expires-invalid-2-digit-year", "Expires: Thu, 18 Aug 50 02:01:18 GMT"),
    asked("freshness-expires-invalid-no-comma", "Expires: Thu 18 Aug 2050 02:01:18 GMT"),
    asked("freshness-expires-invalid-multiple-spaces", "Expires: Thu, 18  Aug  2050 02:01:18 GMT"),
    asked("freshness-expires-invalid-date-dashes", "Expires: Thu, 18-Aug-2050 02:01:18 GMT"),
    asked("freshness-expires-invalid-time-periods", "Expires: Thu, 18 Aug 2050 02.01.18 GMT"),
    asked("freshness-expires-invalid-1-digit-hour", "Expires: Thu, 18 Aug 2050 2:01:18 GMT"),
    asked(
        "freshness-expires-invalid-multiple-lines",
        "Expires: Thu, 18 Aug 2050 2:01:18 GMT",
        "Expires: Thu, 18 Aug 2050 2:01:19 GMT",
    ),
]

_LAST_WEEK = "Last-Modified: @-86400"
GUESSED = [
    *(
        asked(f"heuristic-{status}-cached", _LAST_WEEK, status=status, why=_GUESS)
        for status in (200, 203, 204, 404, 405, 410, 414, 501)
    ),
    asked("heuristic-599-cached", _LAST_WEEK, "Cache-Control: public", status=599, why=_GUESS),
    *(
        asked(f"heuristic-{status}-not_cached", _LAST_WEEK, status=status)
        for status in (201, 202, 403, 502, 503, 504, 599)
    ),
    *(
        asked(f"heuristic-delta-{seconds}", f"Last-Modified: @-{seconds}", why=_GUESS)
        for seconds in (5, 10, 30, 60, 300, 600, 1200, 1800, 3600, 43200, 86400)
    ),
]

_AGED = Ask("upstream", says=("Cache-Control: max-age=100000",))
TOLD = [
    Case("other-age-gen", (_AGED, Ask("cache", has=("Age: >2",)))),
    Case("other-age-delay", (Ask("upstream", says=(_HOUR,), delay=5.0, has=("Age: >0",)),)),
    Case(
        "other-age-update-expires",
        (Ask("upstream", says=("Expires: @2592000", "Age: 30")), Ask("cache", has=("Age: >32",))),
    ),
    Case(
        "other-age-update-max-age",
        (
            Ask("upstream", says=("Cache-Control: max-age=100000", "Age: 30")),
            Ask("cache", has=("Age: >32",)),
        ),
    ),
    Case("other-date-update", (_AGED, Ask("cache", has=("Date: @0",)))),
    Case(
        "other-date-update-expires",
        (Ask("upstream", says=("Expires: @2592000",)), Ask("cache", has=("Date: @0",))),
    ),
    Case(
        "other-date-update-expires-update",
        (Ask("upstream", says=("Expires: @2592000",)), Ask("cache", has=("Expires: @2592000",))),
    ),
]

FOR_CDNS = not_applicable(
    _CDN,
    *(
        f"cdn-{name}"
        for name in (
            *("max-age", "max-age-max", "max-age-max-plus", "max-age-age", "max-age-space-before-equals"),
            *("max-age-space-after-equals", "max-age-0", "max-age-extension", "max-age-case-insensitive"),
            *("max-age-expires", "max-age-cc-max-age-invalid-expires", "max-age-0-expires"),
            *("max-age-short-cc-max-age", "max-age-long-cc-max-age", "private", "no-cache"),
            *("no-store-cc-fresh", "fresh-cc-nostore", "cc-invalid-sh-type-unknown"),
            *("cc-invalid-sh-type-wrong", "remove-header", "remove-age-exceed", "date-update-exceed"),
            "expires-update-exceed",
        )
    ),
)

TABLE = [*CONTROL, *CONTROL_SPOILT, *AGE, *EXPIRES, *GUESSED, *TOLD, *FOR_CDNS]
