"""What a shared cache may and may not reuse: cases after github.com/http-tests/cache-tests, by their ids."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange import Exchange, Reply
from gateway.policies.cache_rules import LONGEST, Caps, Terms, directives, parse_date, terms

CAPS = Caps(ttl=1e12)
NOW = 1_800_000_000.0
FAR = "Expires: Thu, 18 Aug 2050 02:01:18 GMT"


def judged(*lines: str, credentials: bool = False, delay: float = 0.0, caps: Caps = CAPS) -> Terms | None:
    fields = [line.partition(": ") for line in lines]
    headers = [(name.lower().encode(), value.encode()) for name, _, value in fields]
    return terms(headers, caps, credentials=credentials, received=NOW, delay=delay)


def fresh(*lines: str, **keys: Any) -> bool:
    found = judged(*lines, **keys)
    return found is not None and found.lifetime > found.age


# ---- headers alone decide --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "lines", "reused"),
    [
        ("freshness-none", [], False),
        ("freshness-max-age", ["Cache-Control: max-age=3600"], True),
        ("freshness-max-age-0", ["Cache-Control: max-age=0"], False),
        ("freshness-max-age-max", ["Cache-Control: max-age=2147483648"], True),
        ("freshness-max-age-max-plus", ["Cache-Control: max-age=99999999999"], True),
        ("freshness-max-age-age", ["Cache-Control: max-age=3600", "Age: 7200"], False),
        (
            "freshness-max-age-expires",
            ["Cache-Control: max-age=3600", "Expires: Fri, 01 Jan 2021 00:00:00 GMT"],
            True,
        ),
        ("freshness-max-age-expires-invalid", ["Cache-Control: max-age=3600", "Expires: 0"], True),
        ("freshness-max-age-0-expires", ["Cache-Control: max-age=0", FAR], False),
        ("freshness-max-age-extension", ["Cache-Control: foobar, max-age=3600"], True),
        ("freshness-max-age-case-insenstive", ["Cache-Control: MaX-aGe=3600"], True),
        ("freshness-max-age-negative", ["Cache-Control: max-age=-3600"], False),
        ("freshness-s-maxage-shared", ["Cache-Control: s-maxage=3600"], True),
        ("freshness-max-age-s-maxage-shared-shorter", ["Cache-Control: max-age=0, s-maxage=3600"], True),
        ("freshness-max-age-s-maxage-shared-longer", ["Cache-Control: max-age=3600, s-maxage=0"], False),
        ("freshness-max-age-two", ["Cache-Control: max-age=3600, max-age=0"], False),
        ("freshness-max-age-two-lines", ["Cache-Control: max-age=0", "Cache-Control: max-age=3600"], False),
        ("freshness-max-age-quoted", ['Cache-Control: max-age="3600"'], True),
        ("freshness-max-age-ignore-quoted", ['Cache-Control: extension="max-age=3600", max-age=0'], False),
        (
            "freshness-max-age-ignore-quoted-rev",
            ['Cache-Control: max-age=0, extension="max-age=3600"'],
            False,
        ),
        ("freshness-max-age-space-before-equals", ["Cache-Control: max-age =3600"], False),
        ("freshness-max-age-space-after-equals", ["Cache-Control: max-age= 3600"], False),
        ("freshness-max-age-leading-zero", ["Cache-Control: max-age=003600"], True),
        ("freshness-max-age-single-quoted", ["Cache-Control: max-age='3600'"], False),
        ("freshness-max-age-a100", ["Cache-Control: max-age=a3600"], False),
        ("freshness-max-age-100a", ["Cache-Control: max-age=3600a"], False),
        ("age-parse-nonnumeric", ["Cache-Control: max-age=3600", "Age: abc"], True),
        ("age-parse-negative", ["Cache-Control: max-age=3600", "Age: -7200"], True),
        ("age-parse-float", ["Cache-Control: max-age=3600", "Age: 7200.0"], True),
        ("age-parse-large", ["Cache-Control: max-age=3600", "Age: 2147483648"], False),
        ("age-parse-suffix", ["Cache-Control: max-age=3600", "Age: 7200, 0"], False),
        ("age-parse-prefix", ["Cache-Control: max-age=3600", "Age: 0, 7200"], True),
        ("age-parse-suffix-twoline", ["Cache-Control: max-age=3600", "Age: 7200", "Age: 0"], False),
        ("age-parse-prefix-twoline", ["Cache-Control: max-age=3600", "Age: 0", "Age: 7200"], True),
        (
            "freshness-max-age-date",
            ["Cache-Control: max-age=3600", "Date: Fri, 01 Jan 2021 00:00:00 GMT"],
            False,
        ),
        ("freshness-expires-future", [FAR], True),
        ("freshness-expires-past", ["Expires: Fri, 01 Jan 2021 00:00:00 GMT"], False),
        ("freshness-expires-32bit", ["Expires: Tue, 19 Jan 2038 14:14:08 GMT"], True),
        ("freshness-expires-far-future", ["Expires: Sun, 21 Nov 2286 04:46:39 GMT"], True),
        ("freshness-expires-rfc850", ["Expires: Thursday, 18-Aug-50 02:01:18 GMT"], True),
        ("freshness-expires-ansi-c", ["Expires: Thu Aug  8 02:01:18 2050"], True),
        ("freshness-expires-wrong-case-weekday", ["Expires: THU, 18 Aug 2050 02:01:18 GMT"], True),
        ("freshness-expires-wrong-case-month", ["Expires: Thu, 18 AUG 2050 02:01:18 GMT"], True),
        ("freshness-expires-wrong-case-tz", ["Expires: Thu, 18 Aug 2050 02:01:18 gMT"], True),
        ("freshness-expires-invalid", ["Expires: 0"], False),
        ("freshness-expires-invalid-utc", ["Expires: Thu, 18 Aug 2050 02:01:18 UTC"], False),
        ("freshness-expires-invalid-aest", ["Expires: Thu, 18 Aug 2050 02:01:18 AEST"], False),
        ("freshness-expires-invalid-2-digit-year", ["Expires: Thu, 18 Aug 50 02:01:18 GMT"], False),
        ("freshness-expires-invalid-no-comma", ["Expires: Thu 18 Aug 2050 02:01:18 GMT"], False),
        ("freshness-expires-invalid-multiple-spaces", ["Expires: Thu, 18  Aug  2050 02:01:18 GMT"], False),
        ("freshness-expires-invalid-date-dashes", ["Expires: Thu, 18-Aug-2050 02:01:18 GMT"], False),
        ("freshness-expires-invalid-time-periods", ["Expires: Thu, 18 Aug 2050 02.01.18 GMT"], False),
        ("freshness-expires-invalid-1-digit-hour", ["Expires: Thu, 18 Aug 2050 2:01:18 GMT"], False),
        ("freshness-expires-invalid-multiple-lines", [FAR, "Expires: Thu, 18 Aug 2050 02:01:19 GMT"], False),
        ("cc-resp-private-shared", ["Cache-Control: private, max-age=3600"], False),
        ("cc-resp-private-field", ['Cache-Control: private="a", max-age=3600'], False),
        ("cc-resp-no-store", ["Cache-Control: no-store", FAR], False),
        ("cc-resp-no-store-case-insensitive", ["Cache-Control: No-StOrE, max-age=9"], False),
        ("cc-resp-no-store-fresh", ["Cache-Control: max-age=10000, no-store", FAR], False),
        ("cc-resp-no-cache", ["Cache-Control: max-age=10000, no-cache", FAR], False),
        ("cc-resp-no-cache-case-insensitive", ["Cache-Control: max-age=10000, No-CaChE"], False),
        ("cc-resp-no-store-behind-an-open-quote", ['Cache-Control: max-age=9, a="b, no-store'], False),
        ("cc-resp-must-revalidate-fresh", ["Cache-Control: max-age=10000, must-revalidate"], True),
        ("cc-resp-immutable-fresh", ["Cache-Control: max-age=10000, immutable"], True),
        ("other-set-cookie", ["Cache-Control: public, max-age=3600", "Set-Cookie: a=b"], False),
        ("partial-stored", ["Cache-Control: max-age=3600", "Content-Range: bytes 0-1/5"], False),
        ("vary-syntax-star", ["Cache-Control: max-age=3600", "Vary: *"], False),
        ("vary-syntax-star-star", ["Cache-Control: max-age=3600", "Vary: *, *"], False),
        ("vary-syntax-star-foo", ["Cache-Control: max-age=3600", "Vary: foo, *"], False),
        ("vary-syntax-star-lines", ["Cache-Control: max-age=3600", "Vary: foo", "Vary: *"], False),
    ],
)
def test_an_answer_is_reused_when_its_header_says_so(case: str, lines: list[str], reused: bool) -> None:
    """Freshness and storability follow RFC 9111, in malformed cases to the safe side."""
    assert fresh(*lines) is reused, case


@pytest.mark.parametrize(
    ("case", "line", "reused"),
    [
        ("other-authorization", "max-age=3600", False),
        ("other-authorization-public", "max-age=3600, public", True),
        (
            "other-authorization-must-revalidate",
            "max-age=3600, must-revalidate",
            False,
        ),  # allowed, not wanted
        ("other-authorization-smaxage", "s-maxage=3600", False),  # the same
    ],
)
def test_credentials_need_a_public_answer(case: str, line: str, reused: bool) -> None:
    """Stricter than RFC 9111, 3.5: only `public` will do, for cookies too."""
    assert fresh("Cache-Control: " + line, credentials=True) is reused, case


@pytest.mark.parametrize("word", ["must-revalidate", "proxy-revalidate", "s-maxage=2"])
def test_some_answers_are_never_served_stale(word: str) -> None:
    """stale-close-*: an explicit directive forbids it, whatever the defaults and other directives (4.2.4)."""
    caps = Caps(ttl=60, stale_while_revalidate=60, stale_if_error=60)
    found = judged(f"Cache-Control: max-age=2, stale-if-error=9, stale-while-revalidate=9, {word}", caps=caps)

    assert found is not None
    assert (found.stale_while_revalidate, found.stale_if_error) == (0, 0)


def test_an_answers_own_stale_times_go_before_the_operators() -> None:
    """RFC 5861's directives win over the defaults; a zero forbids."""
    caps = Caps(ttl=60, stale_while_revalidate=7, stale_if_error=8)
    own = judged("Cache-Control: max-age=2, stale-if-error=0, stale-while-revalidate=9", caps=caps)
    default = judged("Cache-Control: max-age=2", caps=caps)

    assert own is not None
    assert default is not None
    assert (own.stale_while_revalidate, own.stale_if_error) == (9, 0)
    assert (default.stale_while_revalidate, default.stale_if_error) == (7, 8)


def test_quotes_without_an_end_cost_no_more_than_others() -> None:
    """Each opens what the next can't close; looked for again from each, a long line took hours."""
    said = directives([(b"cache-control", b'no-store, "' + b'\\"' * ((1 << 19) - 1) + b", private")])
    assert {"no-store", "private"} < said.keys()


# ---- the arithmetic --------------------------------------------------------------------------

seconds = st.integers(min_value=0, max_value=1 << 33)


@given(
    age=seconds,
    lifetime=seconds,
    delay=st.floats(0, 1e6),
    dated=st.integers(0, 1 << 20),
    ttl=st.floats(0, 1e6),
)
def test_freshness_is_never_stretched(age: int, lifetime: int, delay: float, dated: int, ttl: float) -> None:
    """Never fresh beyond the cap, nor beyond the lifetime; never younger than any hint says."""
    lines = [f"Cache-Control: max-age={lifetime}", f"Age: {age}", "ETag: x"]
    lines.append("Date: " + formatdate(NOW - dated, usegmt=True))
    found = judged(*lines, delay=delay, caps=Caps(ttl=ttl))

    assert found is not None
    left = found.lifetime - found.age
    assert left <= ttl + 1e-3
    assert left <= min(lifetime, LONGEST) - found.age + 1e-3
    assert found.age >= min(max(age + delay, dated), LONGEST) - 1e-3


@given(st.text(alphabet='abz-=", \\0159\t', max_size=40))
def test_no_cache_control_breaks_the_parser(text: str) -> None:
    """Whatever stands there, it is judged; and a no-store added to it, in front or behind, is obeyed."""
    directives([(b"cache-control", text.encode())])

    for value in ("no-store, " + text, text + ", no-store"):
        if text.count('"') == 0 or value.startswith("no-store"):
            assert "no-store" in directives([(b"cache-control", value.encode())])


@given(st.integers(0, 4_000_000_000))
def test_dates_come_back(moment: int) -> None:
    """The preferred form of a date is read to the second."""
    assert parse_date(formatdate(moment, usegmt=True).encode(), NOW) == moment


@given(st.binary(max_size=40))
def test_no_date_breaks_the_parser(raw: bytes) -> None:
    """Rubbish is no date, and no error."""
    found = parse_date(raw, NOW)

    assert found is None or found > -1e11


# ---- requests and answers --------------------------------------------------------------------


async def test_a_stale_answer_is_not_reused(bench: Callable[..., Any]) -> None:
    """freshness-max-age-stale: one second over is over."""
    assert await bench().reused(after=9.5)
    assert not await bench().reused(after=10.5)


async def test_the_cap_ends_freshness(bench: Callable[..., Any]) -> None:
    """A route's ttl bounds what the answer asks for."""
    assert not await bench(ttl=3).reused(after=3.5)


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 302, 307, 308, 404, 410])
async def test_complete_answers_are_kept(status: int, bench: Callable[..., Any]) -> None:
    """status-*-fresh: final answers that are about the target and not the moment."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10", status=status)

    assert await b.reused()


@pytest.mark.parametrize("status", [206, 304, 400, 403, 500, 502, 503, 504, 599])
async def test_answers_of_a_moment_are_not_kept(status: int, bench: Callable[..., Any]) -> None:
    """Errors pass, also when they claim to be fresh."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10", status=status)

    assert not await b.reused()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "QUERY"])
async def test_an_unsafe_method_invalidates(
    method: str, bench: Callable[..., Any], request_for: Callable[..., Exchange]
) -> None:
    """invalidate-*: what was kept of the target is forgotten, in all variants, once it succeeded."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10", "vary: accept-language")
    await b.get(accept_language="de")
    await b.get(accept_language="fr")
    await b(request_for(method))
    await b.get(accept_language="de")
    await b.get(accept_language="fr")

    assert len(b.asked) == 5


async def test_a_failed_unsafe_method_invalidates_nothing(
    bench: Callable[..., Any], request_for: Callable[..., Exchange]
) -> None:
    """invalidate-*-failed: an error changed nothing."""
    b = bench()
    await b.get()
    before, b.answer = b.answer, b.says(status=500)
    await b(request_for("POST"))
    b.answer = before
    await b.get()

    assert len(b.asked) == 2


async def test_variants_are_told_apart(bench: Callable[..., Any]) -> None:
    """vary-*: each value of a named field has its own answer, its absence too, and others don't matter."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10", "vary: Accept-Language, Foo")
    de = (await b.get(accept_language="de")).body
    fr = (await b.get(accept_language="fr")).body
    none = (await b.get()).body

    assert len({de, fr, none}) == 3
    assert (await b.get(accept_language="de", other="1")).body == de
    assert (await b.get(accept_language="fr")).body == fr
    assert (await b.get(other="2")).body == none
    assert (await b.get(accept_language="de", foo="1")).body not in {de, fr, none}


@pytest.mark.parametrize("name", ["x-request-id", "tidegate-deadline", "traceparent", "x-real-ip"])
async def test_what_differs_every_time_is_not_kept(name: str, bench: Callable[..., Any]) -> None:
    """Fields that the gateway makes anew or drops can't tell variants apart."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10", f"vary: {name}")

    assert not await b.reused()


async def test_fields_of_ours_vary_by_what_the_upstream_saw(
    bench: Callable[..., Any], request_for: Callable[..., Exchange]
) -> None:
    """A client can't choose another's variant by sending a field that the gateway replaces."""
    b = bench()
    b.answer = b.says("cache-control: public, max-age=10", "vary: tidegate-user")
    mine, forged = request_for(), request_for(tidegate_user="u1")
    mine.user = "u1"
    await b(mine)
    await b(forged)

    assert len(b.asked) == 2


async def test_another_host_scheme_or_query_is_another_thing(
    bench: Callable[..., Any], request_for: Callable[..., Exchange]
) -> None:
    """The key is the whole target URI; a host's case makes no difference."""
    b = bench()
    await b.get()
    other_host, other_scheme, same = request_for(), request_for(), request_for()
    other_host.host, other_scheme.scheme, same.host = b"other.test", "https", b"SHOP.test"
    for exchange in (other_host, other_scheme, request_for(target="/x?a=1")):
        await b(exchange)

    assert len(b.asked) == 4
    await b(same)
    assert len(b.asked) == 4


@pytest.mark.parametrize(("word", "reused"), [("", False), ("public, ", True)])
@pytest.mark.parametrize("fields", [{"authorization": "Bearer x"}, {"cookie": "session=1"}])
async def test_credentials_get_only_public_answers(
    fields: dict[str, str], word: str, reused: bool, bench: Callable[..., Any]
) -> None:
    """Neither kept from them nor given to them unless public, whoever came first."""
    b = bench()
    b.answer = b.says(f"cache-control: {word}max-age=10")
    assert await b.reused(**fields) is reused

    c = bench()
    c.answer = c.says(f"cache-control: {word}max-age=10")
    await c.get()
    await c.get(**fields)
    assert (len(c.asked) == 1) is reused
    await c.get()  # and the anonymous still have theirs
    assert len(c.asked) == (1 if reused else 2)


@pytest.mark.parametrize(
    "fields", [{"if_match": '"a"'}, {"connection": "accept-language"}, {"range": "bytes=0-1"}]
)
async def test_odd_requests_leave_nothing_behind(fields: dict[str, str], bench: Callable[..., Any]) -> None:
    """What the key does not tell apart is neither kept nor waited for."""
    b = bench()
    await b.get(**fields)
    await b.get()

    assert len(b.asked) == 2
    assert b.asked[0] == [(name.replace("_", "-").encode(), v.encode()) for name, v in fields.items()]


async def test_a_body_on_get_poisons_nothing(
    bench: Callable[..., Any], request_for: Callable[..., Exchange]
) -> None:
    """The upstream may answer to the body, which the key does not hold."""
    b = bench()
    fat = request_for()
    fat.has_body = True
    await b(fat)
    await b.get()

    assert len(b.asked) == 2


async def test_what_is_kept_is_of_nobody(bench: Callable[..., Any]) -> None:
    """Fields of the one exchange don't come again; the body's length is told; Age grows."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10", "x-request-id: 1", "age: 2", 'etag: "a"')
    await b.get()
    b.clock.advance(3.2)
    reply: Reply = await b.get()

    headers = dict(reply.headers)
    assert b"x-request-id" not in headers
    assert headers[b"age"] == b"5"
    assert headers[b"content-length"] == b"1"
    assert headers[b"cache-status"] == b"tidegate; hit; ttl=4"
    assert [name for name, _ in reply.headers].count(b"age") == 1
