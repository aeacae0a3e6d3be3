"""What a browser is shown where all others get problem+json: a page of its own, in its reader's language.

Only for navigations: a GET or HEAD whose Accept names text/html before any JSON. Pages stand ready as bytes,
one for each error, language and wait; nothing of a request is in them, so there is nothing to escape or leak.
"""

from __future__ import annotations

import base64
import hashlib
import random
from functools import lru_cache
from html import escape
from typing import NamedTuple

from gateway import accept
from gateway.error_words import WORDS
from gateway.errors import NO_STORE, GatewayError
from gateway.exchange import Exchange, Header
from gateway.field import Block, Field
from gateway.fields import values

_LONGEST = 1024  # bytes of such a field that are looked at; no browser says more
_ACCEPTS = 256  # Accept fields remembered; browsers have few, whoever makes up more pays for the reading only
_PASSING = frozenset({429, 500, 502, 503, 504})  # the same request may fare better later
_PAGES = 256  # kept ready, of some 3 KiB each; for as many errors, languages and waits


class Page(NamedTuple):
    """An answer, but for its status and for what one error adds."""

    fields: Block
    body: bytes


def page(
    exchange: Exchange, error: type[GatewayError], retry_after: int | None, spread: int = 0
) -> Page | None:
    """What this request's browser is shown; None for whoever is no browser on its way to a page.

    Args:
        exchange: the request.
        error: why it is not answered.
        retry_after: seconds, as the answer's Retry-After says; None when it has none. The page then loads
            itself anew after so long.
        spread: seconds, up to which that is drawn longer: a crowd that was refused at once must not be back
            at once.
    """
    if exchange.method != "GET" and exchange.method != "HEAD":  # a reload must not send a form again
        return None
    headers = exchange.headers
    language = headers.reader if type(headers) is Block else None
    if language is None:
        language = _reader(headers)
        if type(headers) is Block:
            headers.reader = language  # it comes again
    if not language:
        return None
    again = retry_after
    if again is not None and spread:
        again += random.randint(0, spread)  # noqa: S311 - no secret
    return _ready(error.type, error.status, language, retry_after, again)


def _reader(headers: Header) -> str:
    """The language of a browser on its way to a page; empty for all others."""
    wish = b",".join(values(headers, b"accept"))
    if not wish or len(wish) > _LONGEST or not _prefers_html(wish):
        return ""
    return _language(b",".join(values(headers, b"accept-language"))[:_LONGEST])


@lru_cache(_ACCEPTS)
def _prefers_html(wish: bytes) -> bool:
    return accept.prefers_html(wish.decode("latin-1"))


@lru_cache(_ACCEPTS)
def _language(wish: bytes) -> str:
    return accept.language(wish.decode("latin-1"), WORDS)


@lru_cache(_PAGES)
def _ready(kind: str, status: int, language: str, retry_after: int | None, again: int | None) -> Page:
    words = WORDS[language]
    title, text = words.errors.get(kind, words.other)
    if status in _PASSING:
        link = f'<a class="button" href="">{escape(words.again)}</a>'
    else:
        link = f'<a class="button" href="/">{escape(words.start)}</a>'
    wait = reload = ""
    if again is not None:
        reload = f'<meta http-equiv="refresh" content="{again}">'
        wait = f'<p class="wait">{escape(words.wait(again))}</p><div class="bar"></div>'
    body = _HTML.format(
        tag=words.tag, reload=reload, title=escape(title), style=_STYLE, status=status,
        text=escape(text), wait=wait, link=link,
    ).encode()  # fmt: skip
    fields = [
        Field(b"content-type", b"text/html; charset=utf-8"),
        Field(*NO_STORE),
        Field(b"vary", b"accept, accept-language"),
        Field(b"content-language", words.tag.encode()),
        Field(b"content-security-policy", _POLICY),
        Field(b"x-content-type-options", b"nosniff"),
        Field(b"referrer-policy", b"no-referrer"),
        Field(b"content-length", b"%d" % len(body)),
    ]
    if retry_after is not None:
        fields.append(Field(b"retry-after", b"%d" % retry_after))
    return Page(Block(fields), body)


# ---- looks -----------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; --ground: #f4f5f3; --card: #fff; --ink: #17202a; --soft: #566270;
  --line: #e2e5e3; --sea: #0d5c75; --on-sea: #fff }
@media (prefers-color-scheme: dark) { :root { --ground: #0f151b; --card: #161e26; --ink: #dfe6ec;
  --soft: #a3b0bc; --line: #273340; --sea: #58b4d1; --on-sea: #07222c } }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0; min-height: 100vh; display: flex; padding: 1.25rem; background: var(--ground);
  color: var(--ink); font: 1.0625rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
  "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif }
main { margin: auto; width: 100%; max-width: 30rem; padding: 2rem 1.75rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 1.25rem }
svg { display: block; width: 4rem; color: var(--sea) }
h1 { margin: 1.25rem 0 .5rem; font-size: 1.625rem; line-height: 1.2; letter-spacing: -.015em }
p { margin: 0 0 1rem }
.wait, .code { color: var(--soft) }
.bar { height: .25rem; margin: 0 0 1.5rem; border-radius: 1rem; overflow: hidden; background: var(--line) }
.bar::before { content: ""; display: block; width: 30%; height: 100%; border-radius: inherit;
  background: var(--sea); animation: tide 2.4s ease-in-out infinite alternate }
@keyframes tide { to { transform: translateX(234%) } }
@media (prefers-reduced-motion: reduce) { .bar { display: none } }
.button { display: inline-block; padding: .7rem 1.5rem; border-radius: 999px; background: var(--sea);
  color: var(--on-sea); font-weight: 600; text-decoration: none }
.button:focus-visible { outline: 3px solid var(--sea); outline-offset: 3px }
.code { margin: 1.5rem 0 0; font-size: .875rem }
"""
# The page may use this style and nothing else; `data:` is for its empty icon, lest browsers ask for one.
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest())
_POLICY = (
    b"default-src 'none'; style-src 'sha256-%b'; img-src data:; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'" % _DIGEST
)
_HTML = """<!doctype html>
<html lang="{tag}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
{reload}
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
<svg viewBox="0 0 64 40" fill="none" stroke="currentColor" stroke-width="4" aria-hidden="true">
<path d="M2 10q7.5-8 15 0t15 0 15 0 15 0"/><path d="M2 22q7.5-8 15 0t15 0 15 0 15 0" opacity=".6"/>
<path d="M2 34q7.5-8 15 0t15 0 15 0 15 0" opacity=".3"/>
</svg>
<h1>{title}</h1>
<p>{text}</p>
{wait}
<p>{link}</p>
<p class="code">{status}</p>
</main>
</body>
</html>
"""
