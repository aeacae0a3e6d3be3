"""Bodies read ahead: whole when they are small, streaming on as if nobody had looked when they are not."""

from __future__ import annotations

from collections.abc import AsyncIterator

from gateway.errors import UpstreamError
from gateway.exchange import Reply


async def collect(reply: Reply, cap: int) -> bool:
    """Read a streaming reply's body to its end when it has at most `cap` bytes; say whether it is complete.

    A reply that is larger, or that breaks off, streams on as if nobody had looked.
    """
    stream = reply.stream
    if stream is None:
        return len(reply.body) <= cap
    announced = next((value for name, value in reply.headers if name == b"content-length"), None)
    if announced is not None and int(announced) > cap:
        return False
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in stream:
            chunks.append(chunk)
            size += len(chunk)
            if size > cap:
                reply.stream = _Resumed(chunks, stream)
                return False
    except UpstreamError as error:
        reply.stream = _Resumed(chunks, stream, error)
        return False
    except BaseException:
        await reply.aclose()
        raise
    await reply.aclose()
    reply.stream, reply.body = None, b"".join(chunks)
    return True


class _Resumed:
    """A stream of which a part was read: that part, then the rest or the error that came instead."""

    __slots__ = ("_chunks", "_error", "_stream")

    def __init__(
        self, chunks: list[bytes], stream: AsyncIterator[bytes], error: UpstreamError | None = None
    ) -> None:
        self._chunks = chunks[::-1]
        self._stream = stream
        self._error = error

    def __aiter__(self) -> _Resumed:
        return self

    async def __anext__(self) -> bytes:
        if self._chunks:
            return self._chunks.pop()
        if self._error is not None:
            raise self._error
        return await anext(self._stream)

    async def aclose(self) -> None:
        """Give back what the stream holds."""
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            await close()
