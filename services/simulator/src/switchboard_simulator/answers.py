"""Answers a well-behaved server never gives: none at all, half of one, one byte at a time.

Cutting needs the connection itself, which ASGI does not show: `OpenConnection` puts it into the scope.
"""

import asyncio
import socket
import struct
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "switchboard.connection"
_NO_LINGER = struct.pack("ii", 1, 0)


class OpenConnection(HttpToolsProtocol):
    """uvicorn's protocol, with the transport within reach of the application."""

    def on_message_begin(self) -> None:
        """Begin a request. Called by the parser."""
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: {"transport": self.transport}}


class Cut(Response):
    """Reset the connection instead of answering."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Abort and wait until the server knows that nobody is there."""
        transport: asyncio.Transport = scope["extensions"][_EXTENSION]["transport"]
        # Without lingering, closing sends a reset instead of an orderly end.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()
        await _gone(receive)


class Hang(Response):
    """Give no answer until the client leaves, `seconds` are over or the simulator stops; then cut."""

    def __init__(self, stopping: asyncio.Event, seconds: float) -> None:
        super().__init__()
        self._stopping = stopping
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait, then reset the connection."""
        waits = [asyncio.ensure_future(_gone(receive)), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait(waits, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        await Cut()(scope, receive, send)


class Drip(Response):
    """Send the answer one byte each `seconds_per_byte`, until the client leaves or the simulator stops."""

    def __init__(self, body: bytes, status: int, seconds_per_byte: float, stopping: asyncio.Event) -> None:
        super().__init__(body, status)
        self._pace = seconds_per_byte
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin the answer at once and never hurry."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        gone = asyncio.ensure_future(_gone(receive))
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            for index in range(len(self.body)):
                await send({"type": "http.response.body", "body": bytes(self.body[index : index + 1]),
                            "more_body": True})  # fmt: skip
                done, _ = await asyncio.wait((gone, stop), timeout=self._pace, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    await Cut()(scope, receive, send)
                    return
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            stop.cancel()
            await asyncio.gather(gone, stop, return_exceptions=True)


class Flood(Response):
    """An answer of `size_bytes`, made as it is sent."""

    def __init__(self, size_bytes: int, status: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status_code=status, headers=headers)
        self._size_bytes = size_bytes
        self.raw_headers = [
            pair for pair in self.raw_headers if pair[0] != b"content-length"
        ] + [(b"content-length", str(size_bytes).encode())]  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all; a client that leaves ends it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        left = self._size_bytes
        gone = asyncio.ensure_future(_gone(receive))
        try:
            while left and not gone.done():
                chunk = b"x" * min(left, 65536)
                left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": bool(left)})
                await asyncio.sleep(0)
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while True:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            return
