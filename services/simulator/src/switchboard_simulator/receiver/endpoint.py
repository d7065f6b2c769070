"""`/receiver/{name}`: takes any callback, checks it, logs it, and answers as it was told to."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from switchboard_simulator.answers import Cut, Drip, Flood, Hang
from switchboard_simulator.body import TooLarge, read_body
from switchboard_simulator.journal import Callback, Journal
from switchboard_simulator.receiver.behaviour import Behaviour, Mode
from switchboard_simulator.receiver.record import ReceivedCallback
from switchboard_simulator.receiver.signature import check
from switchboard_simulator.receiver.store import EVENT_HEADERS, Receiver, Receivers

_MOST_BODY_BYTES = 4_000_000
#: How much of a body and of a header the inspector keeps.
_SHOWN = 20_000
_LOGGED_PREFIXES = (
    "x-sinch-",
    "webhook-",
    "switchboard-",
    "traceparent",
    "authorization",
    "content-type",
    "user-agent",
)


class ReceiverEndpoint:
    """Plays the app's side of every webhook."""

    def __init__(
        self,
        receivers: Receivers,
        journal: Journal,
        told: Callable[[ReceivedCallback], None],
        clock: Callable[[], datetime],
        stopping: asyncio.Event,
        hold_seconds: float,
    ) -> None:
        self._receivers = receivers
        self._journal = journal
        self._told = told
        self._clock = clock
        self._stopping = stopping
        self._hold_seconds = hold_seconds

    async def take(self, request: Request) -> Response:
        """Take one request: the line in the log comes before the answer."""
        try:
            body = await read_body(request, _MOST_BODY_BYTES)
        except TooLarge:
            return Response(status_code=413)
        receiver = self._receivers.need(request.path_params["name"])
        headers = dict(request.headers)
        behaviour, status = receiver.treat(body)
        callback = self._record(receiver, request, headers, body, behaviour, status)
        self._journal.append(_line(callback, headers, body))
        receiver.keep(callback)
        self._told(callback)
        return await self._answer(behaviour, status)

    def _record(
        self, receiver: Receiver, request: Request, headers: Mapping[str, str], body: bytes,
        behaviour: Behaviour, status: int | None,
    ) -> ReceivedCallback:  # fmt: skip
        verdict, note = check(receiver.secrets, headers, body)
        event = next((headers[name] for name in EVENT_HEADERS if name in headers), "")
        return ReceivedCallback(
            number=receiver.received + 1,
            receiver=receiver.name,
            at=self._clock(),
            method=request.method,
            path=request.url.path,
            headers={name: _shown_header(name, value) for name, value in headers.items()},
            body=body[:_SHOWN].decode("utf-8", "replace"),
            signature=verdict,
            signature_note=note,
            status=status,
            behaviour=behaviour.mode,
            repeated=bool(event) and receiver.saw(event),
        )

    async def _answer(self, behaviour: Behaviour, status: int | None) -> Response:
        if behaviour.delay_seconds and behaviour.mode is not Mode.DRIP:
            await self._pause(behaviour.delay_seconds)
        headers = {} if behaviour.retry_after is None else {"retry-after": behaviour.retry_after}
        match behaviour.mode:
            case Mode.HANG:
                return Hang(self._stopping, self._hold_seconds)
            case Mode.CUT:
                return Cut()
            case Mode.DRIP:
                body = behaviour.body.encode() or b"x" * 10_000
                return Drip(body, behaviour.status, behaviour.delay_seconds or 1.0, self._stopping)
            case Mode.FLOOD:
                return Flood(behaviour.size_bytes, behaviour.status, headers)
            case Mode.REDIRECT:
                return Response(status_code=status or 302, headers={**headers, "location": behaviour.location})
            case Mode.ANSWER | Mode.FLAP:
                return Response(behaviour.body, status or 200, headers)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def _line(callback: ReceivedCallback, headers: Mapping[str, str], body: bytes) -> Callback:
    try:
        text, is_text = body.decode(), True
    except UnicodeDecodeError:
        text, is_text = body.decode("utf-8", "replace"), False
    return Callback(
        at=callback.at,
        receiver=callback.receiver,
        method=callback.method,
        headers={n: _shown_header(n, v) for n, v in headers.items() if n.startswith(_LOGGED_PREFIXES)},
        body=text,
        is_text=is_text,
        signature=callback.signature,
        status=callback.status,
        behaviour=callback.behaviour,
    )


def _shown_header(name: str, value: str) -> str:
    """A header as it may be kept: a credential is only said to be there."""
    if name == "authorization":
        return value.split(" ", 1)[0] + " …"
    return value[:2000]
