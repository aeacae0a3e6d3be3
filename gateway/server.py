"""uvicorn, made fit for the open: bounded and timed headers, and a client's leaving felt at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.config import Listen
from gateway.errors import BadRequest, GatewayError, HeadersTooLarge, RequestTimeout, UriTooLong
from gateway.guard import TARGET

ABORT = "tidegate.abort"  # in the scope: cuts the connection off, so that no cut body looks whole


def protocol_for(listen: Listen) -> type[HttpToolsProtocol]:
    """The connection class with these bounds built in; uvicorn wants a class, not an instance."""
    return type("BoundedProtocol", (GatewayProtocol,), {"listen": listen})


class GatewayProtocol(HttpToolsProtocol):
    """One client connection."""

    listen: Listen
    _refusal: GatewayError | None = None
    _header_bytes = 0
    _in_header = False
    _timer: asyncio.TimerHandle | None = None
    _task: asyncio.Task[None] | None = None

    # ---- a connection opens, and brings bytes ------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client came; it has so long to say something."""
        super().connection_made(transport)
        self._arm(self.listen.header_timeout)

    def data_received(self, data: bytes) -> None:
        """Bytes came; a header left unfinished starts its clock, and more bytes don't wind it back."""
        super().data_received(data)
        if self._in_header:
            if self._timer is None:
                self._arm(self.listen.header_timeout)
        elif self._timer is not None:
            self._disarm()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_header = True
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        super().on_url(url)
        if len(self.url) > self.listen.max_target:
            self._refuse(UriTooLong(f"the target is longer than {self.listen.max_target} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or one more piece of trailers, which count the same."""
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self.listen.max_header_bytes:
            self._refuse(HeadersTooLarge(f"the header is larger than {self.listen.max_header_bytes} bytes"))
        if len(self.headers) >= self.listen.max_headers:
            self._refuse(HeadersTooLarge(f"more than {self.listen.max_headers} header fields"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The header is whole; the app's task starts on the loop's next turn and finds these in its scope."""
        self._in_header = False
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # ours go beside ASGI's
        scope[TARGET] = self.url
        scope[ABORT] = self.abort
        super().on_headers_complete()

    def _refuse(self, error: GatewayError) -> None:
        self._refusal = error
        raise error  # the parser stops here; uvicorn then asks for the 400 below

    # ---- a connection ends -------------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left: what is done for it stops now, and its slots are free."""
        self._disarm()
        super().connection_lost(exc)
        if self._task is not None and not self._task.done() and self.cycle.disconnected:
            self._task.cancel()

    def abort(self) -> None:
        """Cut the connection off, without an end that could be taken for a whole answer."""
        self.cycle.disconnected = True
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words are plain text
        """Say what was wrong, in the form every refusal has; then hang up."""
        error = self._refusal or BadRequest("the request is not valid HTTP/1.1")
        self._send_refusal(error)

    def _send_refusal(self, error: GatewayError) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            headers, body = error.problem()
            headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
            lines = b"".join(b"%s: %s\r\n" % field for field in headers)
            self.transport.write(STATUS_LINE[error.status] + lines + b"\r\n" + body)
        self.transport.close()

    # ---- clocks and tasks --------------------------------------------------------------------

    def _arm(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._in_header:
            said = f"the header did not arrive within {self.listen.header_timeout:g} s"
            self._send_refusal(RequestTimeout(said))
        else:
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - an ASGI app
        self._task = task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)


class QuietServer(uvicorn.Server):
    """A server whose process handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the process."""
        yield


async def serve_admin(app: Any, sock: socket.socket) -> Callable[[], Awaitable[None]]:  # noqa: ANN401 - an ASGI app
    """Serve an app on a bound socket in the background; returns what stops it."""
    server = QuietServer(
        uvicorn.Config(
            app,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[sock]), name="admin")

    async def stop() -> None:
        server.should_exit = True
        await task

    return stop
