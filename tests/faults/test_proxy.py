"""The proxy does to a connection what its mode says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.faults.proxy import LOOPBACK, Mode, Proxy

from switchboard.testing import wait_until

pytestmark = pytest.mark.fault


@asynccontextmanager
async def _echo() -> AsyncIterator[tuple[Proxy, list[bytes]]]:
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            heard.append(line)
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(answer, LOOPBACK, 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy, heard
    server.close()
    await server.wait_closed()


async def test_what_is_open_passes_both_ways() -> None:
    async with _echo() as (proxy, _):
        reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        writer.write(b"one\n")

        assert await reader.readline() == b"one\n"
        writer.close()


async def test_a_cut_resets_what_is_open_and_what_comes() -> None:
    async with _echo() as (proxy, _):
        reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        writer.write(b"one\n")
        await reader.readline()

        proxy.behave(Mode.CUT)

        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        late, _writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        with pytest.raises(ConnectionError):
            await late.readexactly(1)


async def test_what_is_frozen_comes_through_when_it_thaws() -> None:
    async with _echo() as (proxy, heard):
        proxy.behave(Mode.FROZEN)
        reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        writer.write(b"one\n")
        await writer.drain()
        assert heard == []

        proxy.behave(Mode.OPEN)

        assert await reader.readline() == b"one\n"
        writer.close()


async def test_answers_that_are_lost_were_asked_for() -> None:
    async with _echo() as (proxy, heard):
        reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        writer.write(b"one\n")
        assert await reader.readline() == b"one\n"

        proxy.behave(Mode.ANSWERS_LOST)
        writer.write(b"two\n")
        await wait_until(lambda: proxy.lost_bytes == len(b"two\n"), 5)
        assert heard == [b"one\n", b"two\n"]
        proxy.behave(Mode.OPEN)
        writer.write(b"three\n")

        assert await reader.readline() == b"three\n"
        writer.close()
