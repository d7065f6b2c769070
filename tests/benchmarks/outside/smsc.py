"""A lean SMSC: takes every submit, answers at once, and reports it delivered right after (channel-providers 1.2)."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, cast

from tests.benchmarks.outside.sink import serve

from switchboard_channels.sms.pdu import (
    RESPONSE_BIT,
    BindTransceiver,
    BindTransceiverResp,
    DeliverSm,
    DeliverSmResp,
    EnquireLink,
    EnquireLinkResp,
    Frame,
    PduStream,
    SubmitSm,
    SubmitSmResp,
    Tag,
    Unbind,
    UnbindResp,
    encode,
)

_AGAIN_SECONDS: Final = 0.2


class _Seen:
    """What came, since the last reset."""

    def __init__(self) -> None:
        self.recipients: dict[str, int] = {}
        self.first_at = 0.0
        self.binds = 0

    def submitted(self, recipient: str) -> None:
        self.first_at = self.first_at or time.monotonic()
        self.recipients[recipient] = self.recipients.get(recipient, 0) + 1


_seen = _Seen()
_number = time.time_ns() // 1_000_000 << 16
#: Whether messages are taken without a word: no receipts then.
_receipts = True


class _Peer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._stream = PduStream()
        self._sequence = 0
        #: Receipts without an answer, by sequence number.
        self._open: dict[int, DeliverSm] = {}

    def data_received(self, data: bytes) -> None:
        out: list[bytes] = []
        for item in self._stream.feed(data):
            if isinstance(item, Frame):
                self._on(item, out)
        if out:
            self._transport.write(b"".join(out))

    def _on(self, frame: Frame, out: list[bytes]) -> None:
        match frame.body:
            case SubmitSm() as submit:
                self._take(frame.sequence, submit, out)
            case BindTransceiver():
                _seen.binds += 1
                out.append(encode(BindTransceiverResp("bench"), frame.sequence))
            case EnquireLink():
                out.append(encode(EnquireLinkResp(), frame.sequence))
            case Unbind():
                out.append(encode(UnbindResp(), frame.sequence))
            case DeliverSmResp():
                self._on_answer(frame)
            case body:
                assert body.command_id & RESPONSE_BIT, f"the bench's SMSC knows no {type(body).__name__}"

    def _take(self, sequence: int, submit: SubmitSm, out: list[bytes]) -> None:
        global _number
        _number += 1
        message_id = f"{_number:x}"
        _seen.submitted(submit.destination_addr)
        out.append(encode(SubmitSmResp(message_id), sequence))
        if _receipts:
            out.append(self._deliver(_receipt(submit, message_id)))

    def _deliver(self, receipt: DeliverSm) -> bytes:
        self._sequence += 1
        self._open[self._sequence] = receipt
        return encode(receipt, self._sequence)

    def _on_answer(self, frame: Frame) -> None:
        receipt = self._open.pop(frame.sequence, None)
        if frame.status and receipt is not None:
            # Refused for now, for there are too many at once: it comes again, as from any SMSC.
            asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._again, receipt)

    def _again(self, receipt: DeliverSm) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._deliver(receipt))


def _receipt(submit: SubmitSm, message_id: str) -> DeliverSm:
    moment = time.strftime("%y%m%d%H%M", time.gmtime())
    text = f"id:{message_id} sub:001 dlvrd:001 submit date:{moment} done date:{moment} stat:DELIVRD err:000 text:"
    return DeliverSm(
        source_addr_ton=1, source_addr_npi=1, source_addr=submit.destination_addr,
        dest_addr_ton=submit.source_addr_ton, dest_addr_npi=submit.source_addr_npi,
        destination_addr=submit.source_addr, esm_class=0x04, short_message=text.encode(),
        tlvs={Tag.RECEIPTED_MESSAGE_ID: message_id.encode() + b"\x00", Tag.MESSAGE_STATE: b"\x02"},
    )  # fmt: skip


def _reset(_: dict[str, Any]) -> bool:
    binds = _seen.binds
    _seen.__init__()  # type: ignore[misc]  # one object for everybody who looks at it
    _seen.binds = binds
    return True


def _set(question: dict[str, Any]) -> bool:
    global _receipts
    _receipts = question["receipts"]
    return True


async def _start() -> int:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Peer, "127.0.0.1", 0)
    return int(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    serve(
        _start,
        {
            "reset": _reset,
            "set": _set,
            "binds": lambda _: _seen.binds,
            "count": lambda _: len(_seen.recipients),
            "first_at": lambda _: _seen.first_at,
            "recipients": lambda _: _seen.recipients,
        },
    )
