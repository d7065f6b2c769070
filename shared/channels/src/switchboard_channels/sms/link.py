"""One SMPP connection: bind, window, enquire_link, and the peer's requests (channel-providers 1.2.1, 1.2.2).

A link knows nothing of messages. It writes submits in the order they came, as the window, the pace and the
peer allow, and says of each what is known: answered, perhaps taken, or never written. Everything written in one
turn of the event loop leaves in one system call.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final, NewType, cast

from msgspec import Struct

from switchboard_channels.sms.pdu import (
    MAX_SEQUENCE,
    RESPONSE_BIT,
    AlertNotification,
    BindReceiver,
    BindTransceiver,
    BindTransmitter,
    DataSm,
    DataSmResp,
    DeliverSm,
    DeliverSmResp,
    EnquireLink,
    EnquireLinkResp,
    Frame,
    GenericNack,
    PduStream,
    Status,
    SubmitSm,
    SubmitSmResp,
    Unbind,
    UnbindResp,
    Undecodable,
    encode,
)

#: Submits that wait for the window at one link. The host asks for free slots first, so this is only a bound.
MAX_WAITING: Final = 1_000
#: How long a throttled link stops: the first time, and at most (channel-providers 1.2.3).
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0

#: sequence_number of a request of the peer.
SequenceNumber = NewType("SequenceNumber", int)


class LinkTimes(Struct, frozen=True):
    """How long a link waits, in seconds, and how much it has open."""

    window: int = 10
    #: Submits per second of this bind; None: as fast as the window allows.
    rate_per_second: float | None = None
    connect_timeout_seconds: float = 10.0
    bind_timeout_seconds: float = 10.0
    response_timeout_seconds: float = 30.0
    #: Silence after which the peer is asked whether it lives, and how long it has to say so.
    enquire_interval_seconds: float = 30.0
    enquire_timeout_seconds: float = 10.0
    unbind_timeout_seconds: float = 5.0


class Answered(Struct, frozen=True, gc=False):
    """The peer answered a submit; status 0 means it has the message under this id."""

    status: int
    message_id: str
    #: Seconds the link now stops, when the answer was a throttle.
    pause_seconds: float = 0.0


class Unanswered(Struct, frozen=True, gc=False):
    """The submit was written and no answer came: perhaps taken."""

    why: str


class NotWritten(Struct, frozen=True, gc=False):
    """The submit never left: certainly not taken."""

    why: str


Answer = Answered | Unanswered | NotWritten


class BindRefused(Exception):
    """The peer refused the bind; `status` says why."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the SMSC refused the bind with status {status:#x}")
        self.status = status


class LinkLost(ConnectionError):
    """The connection ended before it was bound."""


class Pace:
    """A token bucket: `rate` a second on average, at most a tenth of a second's worth at once."""

    __slots__ = ("_filled_at", "_rate", "_size", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate, self._size = rate, max(1.0, rate / 10)
        self._tokens, self._filled_at = self._size, now

    def available(self, now: float) -> float:
        """Tokens there are now."""
        self._tokens = min(self._size, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        return self._tokens

    def take(self) -> None:
        """Use one of the available."""
        self._tokens -= 1

    def seconds_until_next(self) -> float:
        """How long until there is one."""
        return max(0.0, (1 - self._tokens) / self._rate)


class _Waiting:
    __slots__ = ("answer", "deadline", "pdu", "sequence", "written_at")

    def __init__(self, sequence: int, pdu: bytes, deadline: float, answer: "asyncio.Future[Answer]") -> None:
        self.sequence, self.pdu, self.deadline, self.answer = sequence, pdu, deadline, answer
        self.written_at = 0.0


class Link(asyncio.Protocol):
    """One connection to an SMSC. Made by `connect`."""

    def __init__(self, times: LinkTimes, on_delivery: Callable[["Link", SequenceNumber, DeliverSm | DataSm], None]):
        self._times = times
        self._on_delivery = on_delivery
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._stream = PduStream()
        self._sequence = 0
        self._out: list[bytes] = []
        self._flush_due = False
        self._waiting: deque[_Waiting] = deque()
        #: In the order they were written, so the first is the oldest.
        self._unanswered: dict[int, _Waiting] = {}
        self._pace = Pace(times.rate_per_second, self._loop.time()) if times.rate_per_second else None
        self._pump_timer: asyncio.TimerHandle | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._abort_timer: asyncio.TimerHandle | None = None
        self._heard_at = self._loop.time()
        self._enquired_at: float | None = None
        self._paused_until = 0.0
        self._pause_seconds = 0.0
        self._congested = False
        self._leaving = False
        self._bind_answer: asyncio.Future[int] | None = None
        self._unbound = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self.is_bound = False
        #: Set when the connection is gone and every submit knows its answer.
        self.closed = asyncio.Event()
        #: Why it is gone, for the log.
        self.why_closed = ""
        #: Answers that came after their submit was given up.
        self.late_answers = 0

    # -- what the session asks for

    async def bind(self, body: BindTransceiver | BindTransmitter | BindReceiver) -> None:
        """Bind. Raises BindRefused, LinkLost or TimeoutError; the link is closed then."""
        self._bind_answer = self._loop.create_future()
        self._write(encode(body, self._next_sequence()))
        try:
            async with asyncio.timeout(self._times.bind_timeout_seconds):
                status = await self._bind_answer
        except BaseException:
            self.close("the bind was not answered")
            raise
        if status:
            self.close(f"the bind was refused with status {status:#x}")
            raise BindRefused(status)
        self.is_bound = True
        self._tick()

    @property
    def free_slots(self) -> int:
        """How many submits would be written without waiting."""
        if not self._may_write():
            return 0
        room = self._times.window - len(self._unanswered) - len(self._waiting)
        if self._pace is not None:
            room = min(room, int(self._pace.available(self._loop.time())))
        return max(0, room)

    def submit(self, body: SubmitSm, deadline: float = inf) -> "asyncio.Future[Answer]":
        """Write a submit when its turn comes, by the loop's clock not after `deadline`.

        The future always gets an answer; it never fails. Raises UnwritableValue when a field does not fit.
        """
        sequence = self._next_sequence()
        waiting = _Waiting(sequence, encode(body, sequence), deadline, self._loop.create_future())
        if not self.is_bound or self._leaving:
            waiting.answer.set_result(NotWritten("not bound"))
        elif len(self._waiting) >= MAX_WAITING:
            waiting.answer.set_result(NotWritten("too many submits wait for the window"))
        else:
            self._waiting.append(waiting)
            self._drained.clear()
            self._pump()
        return waiting.answer

    def reply(self, sequence: SequenceNumber, body: DeliverSmResp | DataSmResp, status: int = 0) -> None:
        """Answer a delivery. On a connection that is gone, nothing happens: the peer delivers again."""
        if not self.closed.is_set():
            self._write(encode(body, sequence, status))

    async def leave(self, within_seconds: float = inf) -> None:
        """End the session cleanly: write no more, wait a moment for open answers, unbind, close."""
        self._leaving = True
        self._fail_waiting("the session ends")
        if self.is_bound and not self.closed.is_set():
            try:
                async with asyncio.timeout(min(within_seconds, self._times.unbind_timeout_seconds)):
                    await self._drained.wait()
                    self._write(encode(Unbind(), self._next_sequence()))
                    await self._unbound.wait()
            except TimeoutError:
                pass
        self.close("unbound")
        await self.closed.wait()

    def close(self, why: str) -> None:
        """Close now. What was written and not answered is unanswered for good."""
        if self._transport is None or self.closed.is_set():
            return
        self.why_closed = self.why_closed or why
        self._leaving = True
        self._flush()
        # A peer that reads nothing must not keep the connection open with what it does not read.
        if self._congested:
            self._transport.abort()
        else:
            self._transport.close()
            self._abort_timer = self._loop.call_later(self._times.unbind_timeout_seconds, self._transport.abort)

    # -- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        self._enquired_at = None
        for item in self._stream.feed(data):
            if isinstance(item, Frame):
                self._on_frame(item)
            else:
                self._on_undecodable(item)
        if self._waiting:
            self._pump()

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        self._pump()

    def connection_lost(self, error: Exception | None) -> None:
        self.why_closed = self.why_closed or (str(error) if error else "the peer closed the connection")
        self.is_bound = False
        self._leaving = True
        for timer in (self._pump_timer, self._tick_timer, self._abort_timer):
            if timer is not None:
                timer.cancel()
        self._fail_waiting("the connection was lost")
        for waiting in self._unanswered.values():
            _settle(waiting, Unanswered("the connection was lost before the answer"))
        self._unanswered.clear()
        self._note_drained()
        if self._bind_answer is not None and not self._bind_answer.done():
            self._bind_answer.set_exception(LinkLost(self.why_closed))
        self._unbound.set()
        self.closed.set()

    # -- inside

    def _on_frame(self, frame: Frame) -> None:
        match frame.body:
            case SubmitSmResp(message_id=message_id):
                self._on_answer(frame.sequence, frame.status, message_id)
            case DeliverSm() | DataSm() as delivery:
                self._on_delivery(self, SequenceNumber(frame.sequence), delivery)
            case EnquireLink():
                self._write(encode(EnquireLinkResp(), frame.sequence))
            case EnquireLinkResp():
                pass
            case Unbind():
                self._write(encode(UnbindResp(), frame.sequence))
                self._fail_waiting("the SMSC ends the session")
                self.close("the SMSC unbound")
            case UnbindResp():
                self._unbound.set()
            case GenericNack():
                self._on_nack(frame)
            case AlertNotification():
                pass
            case body if body.command_id & RESPONSE_BIT:
                self._on_bind_answer(frame.status)
            case _:
                self._nack(frame.sequence, Status.RINVCMDID)

    def _on_undecodable(self, item: Undecodable) -> None:
        if item.fatal:
            self._nack(item.sequence, item.status)
            self.close("the peer sent an impossible command_length")
        elif item.command_id & RESPONSE_BIT:
            waiting = self._unanswered.pop(item.sequence, None)
            if waiting is not None:
                _settle(waiting, Unanswered("the answer could not be read"))
                self._note_drained()
        else:
            self._nack(item.sequence, item.status)

    def _on_nack(self, frame: Frame) -> None:
        if self._bind_answer is not None and not self._bind_answer.done():
            self._bind_answer.set_result(frame.status or Status.RBINDFAIL)
        elif frame.sequence in self._unanswered:
            self._on_answer(frame.sequence, frame.status or Status.RUNKNOWNERR, "")

    def _on_bind_answer(self, status: int) -> None:
        if self._bind_answer is not None and not self._bind_answer.done():
            self._bind_answer.set_result(status)

    def _on_answer(self, sequence: int, status: int, message_id: str) -> None:
        waiting = self._unanswered.pop(sequence, None)
        if waiting is None:
            self.late_answers += 1
            return
        if status == Status.RTHROTTLED:
            self._pause(waiting)
        elif status == 0 and waiting.written_at >= self._paused_until:
            self._pause_seconds = 0.0
        pause = self._pause_seconds if status == Status.RTHROTTLED else 0.0
        _settle(waiting, Answered(status, message_id, pause))
        if not self._unanswered:
            self._note_drained()

    def _pause(self, throttled: _Waiting) -> None:
        """Stop writing for a while; longer each time the first submits after a pause are throttled again."""
        # What was written before the pause was refused by the same throttle: it does not make it longer.
        if throttled.written_at < self._paused_until:
            return
        self._pause_seconds = min(LONGEST_PAUSE_SECONDS, self._pause_seconds * 2 or FIRST_PAUSE_SECONDS)
        self._paused_until = self._loop.time() + self._pause_seconds
        self._pump_at(self._pause_seconds)

    def _may_write(self) -> bool:
        return self.is_bound and not self._leaving and not self._congested and self._loop.time() >= self._paused_until

    def _pump(self) -> None:
        """Write what waits, as far as window, pace and peer allow."""
        if not self._waiting or not self._may_write():
            return
        now = self._loop.time()
        pace = self._pace
        while self._waiting and len(self._unanswered) < self._times.window:
            if pace is not None and pace.available(now) < 1:
                self._pump_at(pace.seconds_until_next())
                return
            waiting = self._waiting.popleft()
            if waiting.answer.done():
                # Whoever asked is gone; nothing was written, so nothing is lost.
                continue
            if now >= waiting.deadline:
                _settle(waiting, NotWritten("its turn did not come in time"))
                continue
            if pace is not None:
                pace.take()
            waiting.written_at = now
            self._unanswered[waiting.sequence] = waiting
            self._write(waiting.pdu)
        self._note_drained()

    def _pump_at(self, delay_seconds: float) -> None:
        if self._pump_timer is not None:
            self._pump_timer.cancel()
        self._pump_timer = self._loop.call_later(delay_seconds, self._pump)

    def _tick(self) -> None:
        """Give up what waited too long for an answer, and ask a silent peer whether it lives."""
        if self.closed.is_set():
            return
        times, now = self._times, self._loop.time()
        while self._unanswered:
            oldest = next(iter(self._unanswered.values()))
            if now - oldest.written_at < times.response_timeout_seconds:
                break
            del self._unanswered[oldest.sequence]
            _settle(oldest, Unanswered("no answer in time"))
        for waiting in [waiting for waiting in self._waiting if now >= waiting.deadline]:
            self._waiting.remove(waiting)
            _settle(waiting, NotWritten("its turn did not come in time"))
        self._note_drained()
        self._pump()
        if self._enquired_at is not None and now - self._enquired_at >= times.enquire_timeout_seconds:
            self._congested = True
            self.close("enquire_link was not answered")
            return
        if self._enquired_at is None and now - self._heard_at >= times.enquire_interval_seconds:
            self._enquired_at = now
            self._write(encode(EnquireLink(), self._next_sequence()))
        shortest = min(times.response_timeout_seconds, times.enquire_interval_seconds, times.enquire_timeout_seconds)
        self._tick_timer = self._loop.call_later(shortest / 4, self._tick)

    def _next_sequence(self) -> int:
        self._sequence = self._sequence % MAX_SEQUENCE + 1
        return self._sequence

    def _nack(self, sequence: int, status: int) -> None:
        self._write(encode(GenericNack(), sequence, status))

    def _write(self, pdu: bytes) -> None:
        self._out.append(pdu)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _fail_waiting(self, why: str) -> None:
        while self._waiting:
            _settle(self._waiting.popleft(), NotWritten(why))
        self._note_drained()

    def _note_drained(self) -> None:
        if not self._waiting and not self._unanswered:
            self._drained.set()


def _settle(waiting: _Waiting, answer: Answer) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(answer)


async def connect(
    host: str,
    port: int,
    times: LinkTimes,
    on_delivery: Callable[[Link, SequenceNumber, DeliverSm | DataSm], None],
    *,
    tls: ssl.SSLContext | None = None,
) -> Link:
    """Open a connection, not bound yet. Raises OSError or TimeoutError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(times.connect_timeout_seconds):
        _, link = await loop.create_connection(lambda: Link(times, on_delivery), host, port, ssl=tls)
    return link
