"""The console's page, in the language that the browser asks for; it holds no data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from gateway import accept

CONSOLE = Path(__file__).parent / "console"
LANGUAGES = {"en": ("en", "English"), "zh": ("zh-CN", "中文")}  # of a catalogue: its tag and its own name
COOKIE = "tidegate-language"
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_YEAR = 365 * 86400  # seconds
_MARK = re.compile(r"\{([a-z.]+)\}")
_CODE = re.compile("`([^`]+)`")


def language_of(request: Request) -> str:
    """The catalogue for this browser: as asked for in `?lang=`, else as before, else as it prefers."""
    for asked in (request.query_params.get("lang", ""), request.cookies.get(COOKIE, "")):
        if asked in LANGUAGES:
            return asked
    return accept.language(request.headers.get("accept-language", ""), LANGUAGES)


@cache
def words(language: str) -> Mapping[str, str]:
    """A catalogue."""
    text = (CONSOLE / "words" / f"{language}.json").read_text(encoding="utf-8")
    return cast("Mapping[str, str]", json.loads(text))


def render(language: str, *, logged_in: bool) -> str:
    """The page."""
    other = next(name for name in LANGUAGES if name != language)
    values = {
        **words(language),
        "lang": LANGUAGES[language][0],
        "session": "yes" if logged_in else "no",
        "other": other,
        "other.name": LANGUAGES[other][1],
    }
    template = (CONSOLE / "index.html").read_text(encoding="utf-8")
    return _MARK.sub(lambda mark: _CODE.sub(r"<code>\1</code>", escape(values[mark[1]])), template)


class Page:
    """Answers `GET /`.

    Args:
        logged_in: whether the browser that sends a request has a session.
    """

    def __init__(self, logged_in: Callable[[Request], bool]) -> None:
        self._logged_in = logged_in

    async def show(self, request: Request) -> Response:
        """The page; a language that was asked for is remembered."""
        language = language_of(request)
        answer = HTMLResponse(render(language, logged_in=self._logged_in(request)), headers=HEADERS)
        answer.headers["vary"] = "accept-language, cookie"
        answer.headers["content-language"] = LANGUAGES[language][0]
        if request.query_params.get("lang") == language:
            answer.set_cookie(COOKIE, language, max_age=_YEAR, httponly=True, samesite="strict")
        return answer


class Static(StaticFiles):
    """Scripts, styles and catalogues: never sniffed, and asked for anew after an update."""

    def file_response(self, *arguments: Any, **named: Any) -> Response:  # noqa: ANN401 - passed on
        """One file."""
        answer = super().file_response(*arguments, **named)
        answer.headers["x-content-type-options"] = "nosniff"
        answer.headers["cache-control"] = "no-cache"
        return answer
