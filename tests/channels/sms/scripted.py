"""An SMSC that does only what a test tells it: for what must be exact to the byte and the moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from switchboard_channels.sms.pdu import (
    BindReceiver,
    BindReceiverResp,
    BindTransceiver,
    BindTransceiverResp,
    BindTransmitter,
    BindTransmitterResp,
    Body,
    Frame,
    PduStream,
    Undecodable,
    encode,
)

PATIENCE_SECONDS = 10.0


class Caller:
    """One connection to the scripted SMSC."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._stream = PduStream()
        self._found: list[Frame | Undecodable] = []

    async def read(self) -> Frame:
        """The next PDU. Raises EOFError when the other side closed."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self._found:
                data = await self._reader.read(65_536)
                if not data:
                    raise EOFError
                self._found += self._stream.feed(data)
        frame = self._found.pop(0)
        assert isinstance(frame, Frame), frame
        return frame

    async def expect(self, kind: type[Body]) -> Frame:
        """The next PDU, which must be of this kind."""
        frame = await self.read()
        assert isinstance(frame.body, kind), frame
        return frame

    async def let_in(self) -> Frame:
        """Take the bind."""
        frame = await self.read()
        match frame.body:
            case BindTransceiver():
                self.write(BindTransceiverResp("scripted"), frame.sequence)
            case BindTransmitter():
                self.write(BindTransmitterResp("scripted"), frame.sequence)
            case BindReceiver():
                self.write(BindReceiverResp("scripted"), frame.sequence)
            case _:
                raise AssertionError(frame)
        return frame

    def write(self, body: Body, sequence: int, status: int = 0) -> None:
        """Send a PDU."""
        self.write_octets(encode(body, sequence, status))

    def write_octets(self, octets: bytes) -> None:
        """Send octets."""
        self._writer.write(octets)

    def cut(self) -> None:
        """Drop the connection."""
        transport = self._writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.abort()

    async def closed(self) -> None:
        """Wait until the other side closed; what it still says is passed over."""
        try:
            while True:
                await self.read()
        except (EOFError, ConnectionError):
            return


class Scripted:
    """Where the scripted SMSC listens."""

    def __init__(self) -> None:
        self.port = 0
        self._callers: asyncio.Queue[Caller] = asyncio.Queue()

    async def caller(self) -> Caller:
        """The next connection."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._callers.get()

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._callers.put(Caller(reader, writer))


@asynccontextmanager
async def scripted_smsc() -> AsyncIterator[Scripted]:
    """A scripted SMSC on a free port."""
    scripted = Scripted()
    server = await asyncio.start_server(scripted._on_connection, "127.0.0.1", 0)
    scripted.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted
    finally:
        server.close()
