"""Long messages: how parts say that they belong together, on the way out and in.

Facts: channel-providers 1.2.2 and 1.2.5. Pure. What belongs together is kept by the host, so that
a part can be answered once it is durable.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from random import Random
from typing import Final

from msgspec import Struct

from switchboard_channels.sms.encoding import MAX_PARTS
from switchboard_channels.sms.pdu import NO_TLVS, Tag, Tlvs

#: esm_class bits.
UDHI: Final = 0x40

_IE_8_BIT: Final = 0x00
_IE_16_BIT: Final = 0x08


class LongMessages(StrEnum):
    """How an SMSC wants long messages: a fact of the account."""

    #: A user data header before the text of each part.
    UDH = "udh"
    #: The same facts in TLVs. Not every SMSC knows them.
    SAR = "sar"
    #: The whole text in one message_payload TLV; the SMSC cuts it. One id, one receipt.
    PAYLOAD = "payload"


class WirePart(Struct, frozen=True):
    """What one submit_sm carries of a message."""

    short_message: bytes
    esm_class: int = 0
    tlvs: Tlvs = NO_TLVS


class Concatenation(Struct, frozen=True):
    """Which part of which message this is."""

    reference: int
    total: int
    number: int


class UserData(Struct, frozen=True):
    """The text octets of one deliver_sm, and where they belong if they are a part."""

    octets: bytes
    part: Concatenation | None = None


def wire_parts(
    parts: Sequence[bytes], way: LongMessages, reference: int, *, reference_bits: int = 8
) -> tuple[WirePart, ...]:
    """Dress the parts of one text for the wire.

    A text of one part goes plain. Raises ValueError for more than 255 parts, which no header can number.
    """
    if way is LongMessages.PAYLOAD:
        text = b"".join(parts)
        if len(text) <= 140:
            return (WirePart(text),)
        return (WirePart(b"", 0, {Tag.MESSAGE_PAYLOAD: text}),)
    total = len(parts)
    if total == 1:
        return (WirePart(parts[0]),)
    if total > MAX_PARTS:
        raise ValueError(f"{total} parts, but a header can number {MAX_PARTS}")
    if way is LongMessages.SAR:
        return tuple(WirePart(part, 0, _sar(reference & 0xFFFF, total, number)) for number, part in enumerate(parts, 1))
    return tuple(
        WirePart(_header(reference, reference_bits, total, number) + part, UDHI) for number, part in enumerate(parts, 1)
    )


def _header(reference: int, bits: int, total: int, number: int) -> bytes:
    if bits == 16:
        return bytes((6, _IE_16_BIT, 4, (reference >> 8) & 0xFF, reference & 0xFF, total, number))
    return bytes((5, _IE_8_BIT, 3, reference & 0xFF, total, number))


def _sar(reference: int, total: int, number: int) -> Tlvs:
    return {
        Tag.SAR_MSG_REF_NUM: reference.to_bytes(2, "big"),
        Tag.SAR_TOTAL_SEGMENTS: bytes((total,)),
        Tag.SAR_SEGMENT_SEQNUM: bytes((number,)),
    }


class References:
    """Concatenation references that come round late: a counter for each slice of destinations.

    A reference must stay unique per source and destination for hours. Destinations are hashed into slices and
    each slice counts on, so a busy pair does not meet its own references again before it used them all up.
    Counters start where `seed` says, so that a restart does not begin where the last run began.
    """

    _SLICES: Final = 4096

    def __init__(self, seed: int) -> None:
        start = Random(seed)
        self._next = [start.randrange(0x10000) for _ in range(self._SLICES)]

    def next_for(self, source: str, destination: str) -> int:
        """The next reference for this pair, 16 bits; users of 8 bits take the low ones."""
        pair = f"{source}\x1f{destination}".encode()
        index = int.from_bytes(blake2b(pair, digest_size=2).digest(), "big") % self._SLICES
        self._next[index] = reference = (self._next[index] + 1) & 0xFFFF
        return reference


def user_data(esm_class: int, octets: bytes, tlvs: Tlvs) -> UserData:
    """Take the header off an inbound message, if it has one, and say which part it is.

    A header that is cut off or claims an impossible part is left out of the text but makes no part: half a
    sentence reaches the app rather than nothing.
    """
    if esm_class & UDHI and octets:
        end = 1 + octets[0]
        return UserData(octets[end:], _part_of_header(octets[1:end]))
    return UserData(octets, _part_of_tlvs(tlvs))


def _part_of_header(header: bytes) -> Concatenation | None:
    at = 0
    while at + 2 <= len(header):
        element, length = header[at], header[at + 1]
        value = header[at + 2 : at + 2 + length]
        if element == _IE_8_BIT and len(value) == 3:
            return _possible(value[0], value[1], value[2])
        if element == _IE_16_BIT and len(value) == 4:
            return _possible(int.from_bytes(value[:2], "big"), value[2], value[3])
        at += 2 + length
    return None


def _part_of_tlvs(tlvs: Mapping[int, bytes]) -> Concatenation | None:
    try:
        reference, total, number = (
            tlvs[Tag.SAR_MSG_REF_NUM],
            tlvs[Tag.SAR_TOTAL_SEGMENTS],
            tlvs[Tag.SAR_SEGMENT_SEQNUM],
        )
    except KeyError:
        return None
    return _possible(int.from_bytes(reference, "big"), int.from_bytes(total, "big"), int.from_bytes(number, "big"))


def _possible(reference: int, total: int, number: int) -> Concatenation | None:
    if total == 1 or not 1 <= number <= total <= MAX_PARTS:
        return None
    return Concatenation(reference, total, number)


class Assembly(Struct, frozen=True):
    """The parts of one long message that have come so far, by number."""

    total: int
    first_at: datetime
    parts: Mapping[int, bytes]

    @property
    def is_whole(self) -> bool:
        """Whether every part is there."""
        return len(self.parts) == self.total

    def is_overdue(self, now: datetime, patience: timedelta) -> bool:
        """Whether the rest is no longer waited for; 5 to 15 minutes are usual (1.2.5)."""
        return now - self.first_at >= patience

    @property
    def octets(self) -> bytes:
        """What is there, in order."""
        return b"".join(self.parts[number] for number in sorted(self.parts))


def with_part(assembly: Assembly | None, part: Concatenation, octets: bytes, now: datetime) -> Assembly:
    """The assembly with one more part. A part that came before changes nothing."""
    if assembly is None:
        return Assembly(part.total, now, {part.number: octets})
    if part.number in assembly.parts:
        return assembly
    return Assembly(assembly.total, assembly.first_at, {**assembly.parts, part.number: octets})
