"""A webhook on loopback that does as it is told and remembers what it got."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httptools
from msgspec import Struct


class Got(Struct):
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event_id(self) -> str:
        return self.headers["switchboard-event-id"]

    @property
    def sequence(self) -> int:
        return int(self.headers["switchboard-sequence"])

    @property
    def attempt(self) -> int:
        return int(self.headers["switchboard-attempt"])


class Answer(Struct):
    """What is answered, and when: `after` is waited for first."""

    status: int = 200
    headers: dict[str, str] = {}
    body: bytes = b""
    after: asyncio.Event | None = None


class Receiver:
    """An HTTP server whose behaviour is a function of the request."""

    def __init__(self, behave: Callable[[Got], Answer] | None = None) -> None:
        self.behave: Callable[[Got], Answer] = behave or (lambda got: Answer())
        self.got: list[Got] = []
        #: Requests answered 2xx.
        self.taken: list[Got] = []
        self.under_way = 0
        self.most_under_way = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Protocol(self), "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def serve(self, got: Got, transport: asyncio.Transport) -> None:
        task = asyncio.create_task(self._serve(got, transport))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, got: Got, transport: asyncio.Transport) -> None:
        self.got.append(got)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            answer = self.behave(got)
            if answer.after is not None:
                await answer.after.wait()
        finally:
            self.under_way -= 1
        if 200 <= answer.status < 300:
            self.taken.append(got)
        head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        transport.write(
            f"HTTP/1.1 {answer.status} X\r\n{head}content-length: {len(answer.body)}\r\n\r\n".encode() + answer.body
        )


class _Protocol(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._parser = httptools.HttpRequestParser(self)
        self._begin()

    def _begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body = b""
        self._path = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        got = Got(self._path, self._headers, self._body)
        self._begin()
        self._receiver.serve(got, self._transport)
