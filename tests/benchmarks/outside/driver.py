"""The load: sends messages over HTTP and notes when each was due and when it was answered.

Closed loop: every connection sends as soon as it has its answer. Open loop: messages are due at a steady rate,
whether earlier ones were answered or not, and latency counts from the moment a message was due.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator
from tempfile import TemporaryFile
from typing import Final, cast

import msgspec
import uvloop
from msgspec import Struct

_MESSAGE: Final = re.compile(rb'"message_id": ?"([^"]+)"')
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Order(Struct, frozen=True, kw_only=True):
    """What to send, and how fast."""

    host: str
    port: int
    path: str
    user: str
    password: str
    #: The request with `%RECIPIENT%` where each message has its own, and `%TARGET%` for the callback URL.
    body: str
    messages: int
    #: The first recipient's number; the others follow.
    first_recipient: int
    connections: int = 64
    #: Messages a second; None: closed loop.
    rate: float | None = None
    #: Callback URLs to use in turn.
    targets: tuple[str, ...] = ("",)
    #: 503 and 429 are tried again so often, and a connection that was refused.
    tries: int = 1


class Sent(Struct, frozen=True, array_like=True):
    """One message that was accepted. Moments are monotonic, the same for all processes of a machine."""

    message_id: str
    recipient: int
    due_at: float
    answered_at: float
    target: str


class Report(Struct, frozen=True):
    """What came of it."""

    sent: list[Sent]
    refused: int
    began_at: float
    ended_at: float


class _Client(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._data = b""
        self._answer: asyncio.Future[bytes] | None = None

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        length = _LENGTH.search(self._data, 0, end)
        if length is None or len(self._data) < end + 4 + int(length[1]):
            return
        answer, self._data = self._data, b""
        if not self._answer.done():
            self._answer.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError())

    async def exchange(self, request: bytes) -> bytes:
        if self._transport.is_closing():
            raise ConnectionResetError
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self._transport.close()


class _Load:
    def __init__(self, order: Order) -> None:
        self._order = order
        token = b64encode(f"{order.user}:{order.password}".encode()).decode()
        self._head = (
            f"POST {order.path} HTTP/1.1\r\nhost: {order.host}\r\nauthorization: Basic {token}\r\n"
            "content-type: application/json\r\ncontent-length: "
        ).encode()
        self._left = deque(range(order.messages))
        self._sent: list[Sent] = []
        self._refused = 0
        self._began = 0.0

    async def run(self) -> Report:
        self._began = time.monotonic()
        await asyncio.gather(*(self._work() for _ in range(min(self._order.connections, self._order.messages))))
        return Report(self._sent, self._refused, self._began, time.monotonic())

    async def _turns(self) -> AsyncIterator[tuple[int, float]]:
        """Which message is next and when it is due."""
        rate = self._order.rate
        while self._left:
            number = self._left.popleft()
            if rate is None:
                yield number, time.monotonic()
                continue
            due = self._began + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            yield number, due

    async def _work(self) -> None:
        client = await self._connect()
        async for number, due in self._turns():
            recipient = self._order.first_recipient + number
            target = self._order.targets[number % len(self._order.targets)]
            body = self._order.body.replace("%RECIPIENT%", str(recipient)).replace("%TARGET%", target).encode()
            request = b"%b%d\r\n\r\n%b" % (self._head, len(body), body)
            for _ in range(self._order.tries):
                try:
                    answer = await client.exchange(request)
                except OSError:
                    # A service that was killed comes back.
                    await asyncio.sleep(0.05)
                    client = await self._connect()
                    continue
                if answer.startswith(b"HTTP/1.1 200") and (found := _MESSAGE.search(answer)):
                    self._sent.append(Sent(found[1].decode(), recipient, due, time.monotonic(), target))
                    break
                await asyncio.sleep(0.05 if self._order.tries > 1 else 0)
            else:
                self._refused += 1
        client.close()

    async def _connect(self) -> _Client:
        deadline = time.monotonic() + 10
        while True:
            try:
                _, client = await asyncio.get_running_loop().create_connection(
                    _Client, self._order.host, self._order.port
                )
                return client
            except OSError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)


def main() -> None:
    """Read an order from standard input, write the report to standard output."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    report = uvloop.run(_Load(order).run())
    sys.stdout.buffer.write(msgspec.json.encode(report))
    sys.stdout.buffer.flush()


async def drive(order: Order) -> Report:
    """Run the load in a process of its own."""
    # A file, not a pipe: what the end of a process leaves in a pipe is not always read.
    with TemporaryFile() as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.benchmarks.outside.driver", stdin=asyncio.subprocess.PIPE, stdout=out
        )
        try:
            await process.communicate(msgspec.json.encode(order))
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, f"the driver ended with {process.returncode}"
        out.seek(0)
        return msgspec.json.decode(out.read(), type=Report)


if __name__ == "__main__":
    main()
