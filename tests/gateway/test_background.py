"""What goes on beside: it does not end in silence."""

from __future__ import annotations

import asyncio

import pytest

from gateway.background import AGAIN, Background
from tests.gateway import virtual_time


def test_a_loop_that_fails_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    """A second later, as often as it fails, each time with its reason in the log; until the end."""
    began: list[float] = []

    async def stumble() -> None:
        began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.5)
        raise KeyError("what nobody foresaw")

    async def main() -> None:
        background = Background()
        background.keep(stumble, "stumbling")
        await asyncio.sleep(2 * (AGAIN + 0.5) + 0.1)
        background.cancel()
        await asyncio.sleep(10 * AGAIN)

    virtual_time.run(main())

    assert began == [0, AGAIN + 0.5, 2 * (AGAIN + 0.5)]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [KeyError, KeyError]
    assert "stumbling failed; it begins anew in 1 s" in caplog.text


def test_what_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """At once, with its reason; what is done or cancelled is not told of."""

    async def fail() -> None:
        raise KeyError("what nobody foresaw")

    async def main() -> None:
        background = Background()
        background.do(asyncio.sleep(1), "well")
        background.do(fail(), "failing")
        await asyncio.sleep(2)
        background.do(asyncio.sleep(60), "cancelled")
        background.cancel()
        await asyncio.sleep(1)

    virtual_time.run(main())

    (told,) = caplog.records
    assert told.getMessage() == "failing failed"
    assert told.exc_info is not None
    assert told.exc_info[0] is KeyError
