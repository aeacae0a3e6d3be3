"""The console's texts: every one in every language, none that is missing, none that nobody uses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gateway.admin.page import CONSOLE, LANGUAGES
from gateway.errors import (
    BadForm,
    CrossSite,
    NotFound,
    ReadOnly,
    StaleForm,
    TooManyLogins,
    Unauthorized,
)
from gateway.pressure import SIGNALS

CATALOGUES = {
    language: json.loads((CONSOLE / "words" / f"{language}.json").read_text("utf-8"))
    for language in LANGUAGES
}
SCRIPTS = {path: path.read_text("utf-8") for path in sorted(CONSOLE.glob("*/*.js"))}
PAGE = (CONSOLE / "index.html").read_text("utf-8")
OURS = {"lang", "session", "other", "other.name"}  # filled in by page.py


def used() -> tuple[set[str], set[str]]:
    """The keys that scripts and page name, and the beginnings of those that they put together."""
    keys, begun = set(re.findall(r"\{([a-z.]+)\}", PAGE)) - OURS, set()
    for text in SCRIPTS.values():
        keys |= set(re.findall(r'\bt\("([^"]+)"', text))
        keys |= {key for pair in re.findall(r'\bt\([^"`)]*\? "([^"]+)" : "([^"]+)"', text) for key in pair}
        begun |= set(re.findall(r"\bt\(`([a-z.]+)\$\{", text))
        begun |= {f"{kind}." for kind in re.findall(r'\bnamed\("([^"]+)"', text)}
        keys |= set(re.findall(r'\b(?:say)\("\w+", "([^"]+)"', text))
    return keys, begun


def test_no_key_lacks_a_translation() -> None:
    """Every catalogue has the same keys, in the same order, none of them empty."""
    first = list(CATALOGUES["en"])

    for language, catalogue in CATALOGUES.items():
        assert list(catalogue) == first, language
        assert all(isinstance(text, str) and text.strip() for text in catalogue.values()), language


def test_translations_are_filled_in_alike() -> None:
    """The same {names} stand in a text in every language."""
    for key, text in CATALOGUES["en"].items():
        for language, catalogue in CATALOGUES.items():
            names = sorted(re.findall(r"\{\w+\}", catalogue[key]))
            assert names == sorted(re.findall(r"\{\w+\}", text)), (language, key)


def test_chinese_is_chinese() -> None:
    """What is the same in both is a name or a sign, not a text that was forgotten."""
    same = {key for key, text in CATALOGUES["zh"].items() if text == CATALOGUES["en"][key]}

    assert same <= {
        *("routes.p50", "routes.p99", "upstream.speed", "worry.panel", "limits.now"),
    } | {key for key in same if not re.search(r"[A-Za-z]{2}", re.sub(r"\{\w+\}", "", CATALOGUES["zh"][key]))}


def test_every_text_that_is_asked_for_is_there() -> None:
    """A key in a script or on the page is a key of the catalogue; a beginning is that of some."""
    keys, begun = used()

    assert len(keys) > 100  # the search itself works
    assert keys <= set(CATALOGUES["en"])
    for beginning in begun:
        assert any(key.startswith(beginning) for key in CATALOGUES["en"]), beginning


def test_no_text_is_left_over() -> None:
    """Every key of the catalogue is asked for somewhere, by name or by its beginning."""
    keys, begun = used()
    words = {"on", "off", "auto"}  # the values of switches are keys themselves
    left = {
        key
        for key in CATALOGUES["en"]
        if key not in keys | words and not any(beginning and key.startswith(beginning) for beginning in begun)
    }

    assert left == set()


def test_what_refuses_an_operator_has_words() -> None:
    """By the problem's type, in every language, for nobody reads an error in another one."""
    refusals = (Unauthorized, TooManyLogins, ReadOnly, StaleForm, CrossSite, BadForm, NotFound)

    for error in refusals:
        assert f"refused.{error.type.rpartition(':')[2]}" in CATALOGUES["en"], error


def test_what_the_gateway_names_has_words() -> None:
    """Signals, outcomes, breakers' states and steps of the standard ladder."""
    for names, kind in (
        (SIGNALS, "signal"),
        (("proxied", "cached", "limited", "shed", "degraded", "broken", "rejected", "failed"), "outcome"),
        (("closed", "half-open", "open"), "breaker"),
        (("critical", "normal", "optional"), "priority"),
        (("viewer", "operator"), "role"),
    ):
        for name in names:
            assert f"{kind}.{name}" in CATALOGUES["en"]


# ---- what the files may be --------------------------------------------------------------------


@pytest.mark.parametrize("path", [*SCRIPTS, *sorted(CONSOLE.glob("*/*.css"))], ids=lambda p: p.name)
def test_each_file_is_small(path: Path) -> None:
    """One noun, below 150 lines."""
    assert len(path.read_text("utf-8").splitlines()) < 150


def test_nothing_comes_from_elsewhere_or_stands_inline() -> None:
    """No address of another host; no style, script or handler in the page; none set by scripts."""
    for path in [path for path in CONSOLE.rglob("*") if path.suffix in {".js", ".css", ".html"}]:
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|url\(|@import", text), path
        assert not re.search(r"innerHTML|insertAdjacentHTML|\beval\(|new Function|document\.write", text), (
            path
        )
    assert not re.search(r"<style|<script(?![^>]* src=)|\bstyle=|\son\w+=", PAGE)
    assert not any(re.search(r"[\"']style[\"']|\.style\b", text) for text in SCRIPTS.values())
