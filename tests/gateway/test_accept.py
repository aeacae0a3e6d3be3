"""What clients prefer, by the weights of their Accept fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import accept


@pytest.mark.parametrize(
    ("wish", "language"),
    [
        ("", "en"),
        ("zh", "zh"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("zh-Hant-TW", "zh"),
        ("en-GB,zh;q=0.9", "en"),
        ("en;q=0.5, zh;q=0.7", "zh"),
        ("de, fr;q=0.9", "en"),
        ("zh;q=0", "en"),
        ("zh;q=9, en", "en"),
        ("*", "en"),
        ("ZH-cn", "zh"),
    ],
)
def test_the_language_is_what_the_browser_prefers(wish: str, language: str) -> None:
    """By the weights of Accept-Language; English when nothing of ours is wanted."""
    assert accept.language(wish) == language


@given(st.text(max_size=200))
def test_no_header_breaks_it(wish: str) -> None:
    """Whatever a browser sends, there is an answer."""
    assert accept.language(wish) in {"en", "zh"}
    assert accept.prefers_html(wish) in {True, False}
