"""A TCP proxy between a service and what it talks to: delays, drops, freezes, cuts, and refuses, on demand."""

from __future__ import annotations

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

LOOPBACK: Final = "127.0.0.1"
_CHUNK_BYTES: Final = 64 * 1024
#: `SO_LINGER` on with no time: closing sends a reset.
_RESET: Final = struct.pack("ii", 1, 0)


class Mode(StrEnum):
    """What happens to what passes."""

    #: Everything passes.
    OPEN = "open"
    #: Everything passes, `delay_seconds` late, in each direction.
    SLOW = "slow"
    #: Connections stay, new ones are taken, and nothing passes: half-open, as behind a dead router.
    FROZEN = "frozen"
    #: Requests pass, answers are thrown away.
    ANSWERS_LOST = "answers_lost"
    #: Connections are reset and new ones are reset at once.
    CUT = "cut"


class Proxy:
    """One link. `Proxy(port)` leads to a server on loopback; services are given `address`."""

    def __init__(self, target_port: int, *, port: int = 0) -> None:
        self._target_port = target_port
        self._port = port
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._delay_seconds = 0.0
        self.mode = Mode.OPEN
        #: Answers thrown away so far.
        self.lost_bytes = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, LOOPBACK, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._reset_all()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def address(self) -> str:
        """`host:port` to give to a client."""
        return f"{LOOPBACK}:{self._port}"

    def behave(self, mode: Mode, *, delay_seconds: float = 0.0) -> None:
        """Treat everything this way from now on, connections that are open included."""
        self.mode = mode
        self._delay_seconds = delay_seconds if mode is Mode.SLOW else 0.0
        if mode is Mode.FROZEN:
            self._passing.clear()
        else:
            self._passing.set()
        if mode is Mode.CUT:
            self._reset_all()

    def cut_once(self) -> None:
        """Reset every connection that is open; new ones pass."""
        self._reset_all()

    async def _take(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            await self._link(reader, writer)
        finally:
            self._links.discard(task)

    async def _link(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.mode is Mode.CUT:
                _reset(writer)
                return
            await self._passing.wait()
            try:
                far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._target_port)
            except OSError:
                _reset(writer)
                return
            self._writers.add(far_writer)
            try:
                await self._both_ways(reader, far_writer, far_reader, writer)
            finally:
                self._writers.discard(far_writer)
                _close(far_writer)
        finally:
            self._writers.discard(writer)
            _close(writer)

    async def _both_ways(
        self, reader: StreamReader, far_writer: StreamWriter, far_reader: StreamReader, writer: StreamWriter
    ) -> None:
        ways = [
            asyncio.ensure_future(self._pass(reader, far_writer, is_answer=False)),
            asyncio.ensure_future(self._pass(far_reader, writer, is_answer=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, reader: StreamReader, writer: StreamWriter, *, is_answer: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._passing.wait()
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                if is_answer and self.mode is Mode.ANSWERS_LOST:
                    self.lost_bytes += len(data)
                    continue
                writer.write(data)
                await writer.drain()

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)


def _reset(writer: StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def _close(writer: StreamWriter) -> None:
    with suppress(OSError):
        writer.close()
