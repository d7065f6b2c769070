"""One connection at the SMSC: who it is, what it sends, and deliveries on their way to it."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from msgspec import Struct

from switchboard_channels.sms.pdu import (
    MAX_SEQUENCE,
    RESPONSE_BIT,
    AlertNotification,
    BindReceiver,
    BindReceiverResp,
    BindTransceiver,
    BindTransceiverResp,
    BindTransmitter,
    BindTransmitterResp,
    Body,
    CancelSm,
    DataSm,
    DeliverSm,
    EnquireLink,
    EnquireLinkResp,
    Frame,
    GenericNack,
    PduStream,
    QuerySm,
    ReplaceSm,
    Status,
    SubmitMulti,
    SubmitSm,
    Tag,
    Unbind,
    UnbindResp,
    encode,
)

Bind = BindReceiver | BindTransmitter | BindTransceiver
Request = SubmitSm | SubmitMulti | DataSm | QuerySm | CancelSm | ReplaceSm

_BIND_ANSWERS = {
    BindReceiver: BindReceiverResp,
    BindTransmitter: BindTransmitterResp,
    BindTransceiver: BindTransceiverResp,
}


class Centre(Protocol):
    """What a connection asks of the SMSC behind it."""

    def on_connected(self, peer: "Peer") -> None:
        """The connection stands, TLS included."""
        ...

    def on_bind(self, peer: "Peer", bind: Bind) -> int:
        """Let the peer in, or say with a command_status why not."""
        ...

    def on_request(self, peer: "Peer", sequence: int, body: Request) -> None:
        """Something a bound peer that may send asks for."""
        ...

    def on_gone(self, peer: "Peer") -> None:
        """The connection ended."""
        ...

    def on_room(self, peer: "Peer") -> None:
        """The peer may be given another delivery."""
        ...


class _Open(Struct):
    """A delivery without an answer yet."""

    answered: Callable[[int | None], None]
    timer: asyncio.TimerHandle


class Peer(asyncio.Protocol):
    """One connection. Writes of one turn of the loop leave together."""

    def __init__(self, centre: Centre, *, delivery_window: int, answer_timeout_seconds: float) -> None:
        self._centre = centre
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._stream = PduStream()
        self._out: list[bytes] = []
        self._sequence = 0
        self._open: dict[int, _Open] = {}
        self._window = delivery_window
        self._timeout = answer_timeout_seconds
        self.system_id = ""
        self.sends = False
        self.receives = False
        self.closed = asyncio.Event()
        #: enquire_link answers heard, for whoever asked.
        self.signs = 0

    @property
    def is_bound(self) -> bool:
        """Whether it may do anything."""
        return self.sends or self.receives

    @property
    def has_room(self) -> bool:
        """Whether it takes a delivery now."""
        return self.receives and len(self._open) < self._window and not self.closed.is_set()

    def deliver(self, body: DeliverSm | DataSm, answered: Callable[[int | None], None]) -> None:
        """Send a delivery. `answered` hears its command_status, or None when no answer came."""
        sequence = self._next_sequence()
        timer = self._loop.call_later(self._timeout, self._settle, sequence, None)
        self._open[sequence] = _Open(answered, timer)
        self.write(encode(body, sequence))

    def answer(self, body: Body, sequence: int, status: int = 0) -> None:
        """Answer a request."""
        self.write(encode(body, sequence, status))

    def enquire(self) -> None:
        """Ask for a sign of life."""
        self.write(encode(EnquireLink(), self._next_sequence()))

    def unbind(self) -> None:
        """End the session the polite way: the peer answers and closes."""
        self.write(encode(Unbind(), self._next_sequence()))

    def write(self, pdu: bytes) -> None:
        """Write octets, as they are."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(pdu)

    def cut(self) -> None:
        """Drop the connection; what was not flushed is lost."""
        self._out.clear()
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close after what is written."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    # -- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._centre.on_connected(self)

    def data_received(self, data: bytes) -> None:
        for item in self._stream.feed(data):
            if isinstance(item, Frame):
                self._on_frame(item)
            elif item.fatal or not item.command_id & RESPONSE_BIT:
                self.answer(GenericNack(), item.sequence, item.status)
                if item.fatal:
                    self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()
        self.sends = self.receives = False
        for sequence in list(self._open):
            self._settle(sequence, None)
        self._centre.on_gone(self)

    # -- inside

    def _on_frame(self, frame: Frame) -> None:
        match frame.body:
            case SubmitSm() | SubmitMulti() | DataSm() | QuerySm() | CancelSm() | ReplaceSm() as request:
                self._on_request(frame.sequence, request)
            case BindReceiver() | BindTransmitter() | BindTransceiver() as bind:
                self._on_bind(frame.sequence, bind)
            case EnquireLink():
                self.answer(EnquireLinkResp(), frame.sequence)
            case EnquireLinkResp():
                self.signs += 1
            case Unbind():
                self.sends = self.receives = False
                self.answer(UnbindResp(), frame.sequence)
                self.close()
            case UnbindResp():
                self.close()
            case AlertNotification():
                pass
            case body if body.command_id & RESPONSE_BIT:
                self._settle(frame.sequence, frame.status)
            case _:
                self.answer(GenericNack(), frame.sequence, Status.RINVCMDID)

    def _on_bind(self, sequence: int, bind: Bind) -> None:
        answer = _BIND_ANSWERS[type(bind)]
        status = Status.RALYBND if self.is_bound else self._centre.on_bind(self, bind)
        if status:
            self.answer(answer(), sequence, status)
            self.close()
            return
        self.system_id = bind.system_id
        self.sends = not isinstance(bind, BindReceiver)
        self.receives = not isinstance(bind, BindTransmitter)
        self.answer(answer("simulator", {Tag.SC_INTERFACE_VERSION: b"\x34"}), sequence)
        self._centre.on_room(self)

    def _on_request(self, sequence: int, request: Request) -> None:
        if self.sends:
            self._centre.on_request(self, sequence, request)
        else:
            self.answer(GenericNack(), sequence, Status.RINVBNDSTS)

    def _settle(self, sequence: int, status: int | None) -> None:
        delivery = self._open.pop(sequence, None)
        if delivery is None:
            return
        delivery.timer.cancel()
        delivery.answered(status)
        if not self.closed.is_set():
            self._centre.on_room(self)

    def _next_sequence(self) -> int:
        self._sequence = self._sequence % MAX_SEQUENCE + 1
        return self._sequence

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()
