"""SMPP 3.4 PDUs: what is on the wire, as frozen values, and the way there and back (channel-providers 1.2).

Each PDU is one struct whose fields stand in wire order, and whose layout is data: one reader and one writer
serve them all. Reading is tolerant where real SMSCs are careless (a response may lack its body, TLVs may
follow a message id, a C-string may be longer than it should); writing is strict.

    PduError
    ├── MalformedBody      the frame is whole but its body cannot be read; the session goes on
    └── UnwritableValue    a value does not fit its field; a mistake of ours, nothing is sent
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from struct import Struct as Packing
from typing import Any, ClassVar, Final, NoReturn, Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import astuple

HEADER_BYTES: Final = 16
#: A message_payload holds up to 64 KiB; anything longer than this is not SMPP (channel-providers 1.2.2).
MAX_PDU_BYTES: Final = 70_000
MAX_SEQUENCE: Final = 0x7FFFFFFF
RESPONSE_BIT: Final = 0x80000000

_HEADER: Final = Packing(">IIII")
_TLV_HEADER: Final = Packing(">HH")


class PduError(Exception):
    """Base of what can be wrong with one PDU; `status` is the command_status to answer with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class MalformedBody(PduError):
    """The body does not hold what its command promises."""


class UnwritableValue(PduError):
    """A value is too long or out of range for its field."""


class Command(IntEnum):
    """command_id of requests; a response has the high bit set (channel-providers 1.2.1)."""

    BIND_RECEIVER = 0x01
    BIND_TRANSMITTER = 0x02
    QUERY_SM = 0x03
    SUBMIT_SM = 0x04
    DELIVER_SM = 0x05
    UNBIND = 0x06
    REPLACE_SM = 0x07
    CANCEL_SM = 0x08
    BIND_TRANSCEIVER = 0x09
    OUTBIND = 0x0B
    ENQUIRE_LINK = 0x15
    SUBMIT_MULTI = 0x21
    ALERT_NOTIFICATION = 0x102
    DATA_SM = 0x103
    GENERIC_NACK = 0x80000000


class Tag(IntEnum):
    """Tags of the optional parameters this code reads or writes."""

    DEST_ADDR_SUBUNIT = 0x0005
    ADDITIONAL_STATUS_INFO_TEXT = 0x001D
    RECEIPTED_MESSAGE_ID = 0x001E
    USER_MESSAGE_REFERENCE = 0x0204
    SAR_MSG_REF_NUM = 0x020C
    SAR_TOTAL_SEGMENTS = 0x020E
    SAR_SEGMENT_SEQNUM = 0x020F
    SC_INTERFACE_VERSION = 0x0210
    NETWORK_ERROR_CODE = 0x0423
    MESSAGE_PAYLOAD = 0x0424
    DELIVERY_FAILURE_REASON = 0x0425
    MESSAGE_STATE = 0x0427
    CONGESTION_STATE = 0x0428
    #: Vendor: mobile country and network code as text, e.g. "23430" NUL.
    MCCMNC = 0x1403


Tlvs = Mapping[int, bytes]
NO_TLVS: Final[Tlvs] = {}

# ----------------------------------------------------------------------------------------------- layouts


class _Step(Protocol):
    """One field, or a run of fields of fixed size, of a body.

    `read` appends the values found at `at` and gives where the next field begins; `write` takes the values
    from `index` on and gives the index of the next.
    """

    def read(self, data: bytes, at: int, values: list[Any]) -> int: ...

    def write(self, values: tuple[Any, ...], index: int, chunks: list[bytes]) -> int: ...


class _CString:
    """A NUL-terminated string. `size` counts the NUL, as the specification does."""

    __slots__ = ("name", "optional_nul", "size")

    def __init__(self, name: str, size: int, *, optional_nul: bool = False) -> None:
        self.name, self.size, self.optional_nul = name, size, optional_nul

    def read(self, data: bytes, at: int, values: list[Any]) -> int:
        end = data.find(0, at)
        if end < 0:
            if not self.optional_nul:
                raise MalformedBody(f"{self.name} has no end", Status.RINVCMDLEN)
            end = len(data)
        values.append(data[at:end].decode("latin-1"))
        return end + 1

    def write(self, values: tuple[Any, ...], index: int, chunks: list[bytes]) -> int:
        text: str = values[index]
        if not text:
            chunks.append(b"\0")
            return index + 1
        if not text.isascii() or "\0" in text:
            raise UnwritableValue(f"{self.name} is not ASCII", Status.RSYSERR)
        if len(text) >= self.size:
            raise UnwritableValue(f"{self.name} takes {self.size - 1} octets", Status.RSYSERR)
        chunks.append(text.encode() + b"\0")
        return index + 1


class _Octets:
    """A run of one-octet numbers, read and written at once."""

    __slots__ = ("names", "packing")

    def __init__(self, *names: str) -> None:
        self.names = names
        self.packing = Packing(f"{len(names)}B")

    def read(self, data: bytes, at: int, values: list[Any]) -> int:
        end = at + self.packing.size
        if end > len(data):
            raise MalformedBody(f"{self.names[0]} is missing", Status.RINVCMDLEN)
        values.extend(self.packing.unpack_from(data, at))
        return end

    def write(self, values: tuple[Any, ...], index: int, chunks: list[bytes]) -> int:
        end = index + self.packing.size
        try:
            chunks.append(bytes(values[index:end]))
        except ValueError:
            raise UnwritableValue(f"one of {', '.join(self.names)} is no octet", Status.RSYSERR) from None
        return end


class _ShortMessage:
    """sm_length and short_message: at most 254 octets, counted before they come."""

    __slots__ = ()

    def read(self, data: bytes, at: int, values: list[Any]) -> int:
        if at >= len(data):
            raise MalformedBody("sm_length is missing", Status.RINVCMDLEN)
        end = at + 1 + data[at]
        if end > len(data):
            raise MalformedBody("short_message is cut off", Status.RINVMSGLEN)
        values.append(data[at + 1 : end])
        return end

    def write(self, values: tuple[Any, ...], index: int, chunks: list[bytes]) -> int:
        text: bytes = values[index]
        if len(text) > 254:
            raise UnwritableValue("short_message takes 254 octets", Status.RINVMSGLEN)
        chunks.append(bytes((len(text),)) + text)
        return index + 1


class _Destinations:
    """number_of_dests and the addresses or distribution lists of submit_multi."""

    __slots__ = ()

    def read(self, data: bytes, at: int, values: list[Any]) -> int:
        if at >= len(data):
            raise MalformedBody("number_of_dests is missing", Status.RINVCMDLEN)
        found: list[Destination | DistributionList] = []
        count, at = data[at], at + 1
        for _ in range(count):
            flag = data[at] if at < len(data) else 0
            read: list[Any] = []
            if flag == 1:
                at = _read_steps(_DESTINATION, data, at + 1, read)
                found.append(Destination(*read))
            elif flag == 2:
                at = _read_steps(_LIST_NAME, data, at + 1, read)
                found.append(DistributionList(*read))
            else:
                raise MalformedBody("dest_flag is neither 1 nor 2", Status.RINVDESTFLAG)
        values.append(tuple(found))
        return at

    def write(self, values: tuple[Any, ...], index: int, chunks: list[bytes]) -> int:
        destinations: Sequence[Destination | DistributionList] = values[index]
        if not 1 <= len(destinations) <= 254:
            raise UnwritableValue("submit_multi takes 1 to 254 destinations", Status.RINVNUMDESTS)
        chunks.append(bytes((len(destinations),)))
        for destination in destinations:
            steps = _DESTINATION if isinstance(destination, Destination) else _LIST_NAME
            chunks.append(b"\x01" if isinstance(destination, Destination) else b"\x02")
            _write_steps(steps, astuple(destination), chunks)
        return index + 1


class _Refusals:
    """no_unsuccess and the addresses submit_multi could not reach, each with its error."""

    __slots__ = ()

    def read(self, data: bytes, at: int, values: list[Any]) -> int:
        found: list[Refusal] = []
        count = data[at] if at < len(data) else 0
        at += 1
        for _ in range(count):
            read: list[Any] = []
            at = _read_steps(_DESTINATION, data, at, read)
            if at + 4 > len(data):
                raise MalformedBody("error_status_code is missing", Status.RINVCMDLEN)
            read.append(int.from_bytes(data[at : at + 4], "big"))
            found.append(Refusal(*read))
            at += 4
        values.append(tuple(found))
        return at

    def write(self, values: tuple[Any, ...], index: int, chunks: list[bytes]) -> int:
        refusals: Sequence[Refusal] = values[index]
        chunks.append(bytes((len(refusals),)))
        for refusal in refusals:
            _write_steps(_DESTINATION, astuple(refusal), chunks)
            chunks.append(refusal.status.to_bytes(4, "big"))
        return index + 1


def _read_steps(steps: Sequence[_Step], data: bytes, at: int, values: list[Any]) -> int:
    for step in steps:
        at = step.read(data, at, values)
    return at


def _write_steps(steps: Sequence[_Step], values: tuple[Any, ...], chunks: list[bytes]) -> None:
    index = 0
    for step in steps:
        index = step.write(values, index, chunks)


_DESTINATION: Final[tuple[_Step, ...]] = (_Octets("ton", "npi"), _CString("address", 21))
_LIST_NAME: Final[tuple[_Step, ...]] = (_CString("name", 21),)
_BIND: Final[tuple[_Step, ...]] = (
    _CString("system_id", 16),
    _CString("password", 9),
    _CString("system_type", 13),
    _Octets("interface_version", "addr_ton", "addr_npi"),
    _CString("address_range", 41),
)
_SYSTEM_ID: Final[tuple[_Step, ...]] = (_CString("system_id", 16, optional_nul=True),)
_MESSAGE_ID: Final[tuple[_Step, ...]] = (_CString("message_id", 65, optional_nul=True),)
_SOURCE: Final[tuple[_Step, ...]] = (
    _Octets("source_addr_ton", "source_addr_npi"),
    _CString("source_addr", 21),
)
_LONG_SOURCE: Final[tuple[_Step, ...]] = (
    _Octets("source_addr_ton", "source_addr_npi"),
    _CString("source_addr", 65),
)
_MESSAGE: Final[tuple[_Step, ...]] = (
    _CString("service_type", 6),
    *_SOURCE,
    _Octets("dest_addr_ton", "dest_addr_npi"),
    _CString("destination_addr", 21),
    _Octets("esm_class", "protocol_id", "priority_flag"),
    _CString("schedule_delivery_time", 17),
    _CString("validity_period", 17),
    _Octets("registered_delivery", "replace_if_present_flag", "data_coding", "sm_default_msg_id"),
    _ShortMessage(),
)

# ----------------------------------------------------------------------------------------------- bodies


class Destination(Struct, frozen=True):
    """One address of submit_multi."""

    ton: int
    npi: int
    address: str


class DistributionList(Struct, frozen=True):
    """The name of a list of addresses the SMSC keeps."""

    name: str


class Refusal(Struct, frozen=True):
    """An address submit_multi did not reach, with the command_status that says why."""

    ton: int
    npi: int
    address: str
    status: int


class Body(Struct, frozen=True, gc=False):
    """What every PDU body has: the layout of its fields, in wire order, and whether TLVs may follow."""

    command_id: ClassVar[int]
    layout: ClassVar[Sequence[_Step]] = ()
    has_tlvs: ClassVar[bool] = False


class _Bind(Body, frozen=True, gc=False):
    layout = _BIND

    system_id: str = ""
    password: str = ""
    system_type: str = ""
    interface_version: int = 0x34
    addr_ton: int = 0
    addr_npi: int = 0
    address_range: str = ""

    def __repr__(self) -> str:
        # The password stays out of logs and tracebacks.
        return f"{type(self).__name__}(system_id={self.system_id!r}, system_type={self.system_type!r})"


class BindTransceiver(_Bind, frozen=True, gc=False):
    """Open a session that both sends and receives."""

    command_id = Command.BIND_TRANSCEIVER


class BindTransmitter(_Bind, frozen=True, gc=False):
    """Open a session that only sends."""

    command_id = Command.BIND_TRANSMITTER


class BindReceiver(_Bind, frozen=True, gc=False):
    """Open a session that only receives."""

    command_id = Command.BIND_RECEIVER


class _BindResp(Body, frozen=True, gc=False):
    layout = _SYSTEM_ID
    has_tlvs = True

    system_id: str = ""
    tlvs: Tlvs = NO_TLVS


class BindTransceiverResp(_BindResp, frozen=True, gc=False):
    """The SMSC's answer to bind_transceiver; a non-zero status refuses."""

    command_id = Command.BIND_TRANSCEIVER | RESPONSE_BIT


class BindTransmitterResp(_BindResp, frozen=True, gc=False):
    """The SMSC's answer to bind_transmitter."""

    command_id = Command.BIND_TRANSMITTER | RESPONSE_BIT


class BindReceiverResp(_BindResp, frozen=True, gc=False):
    """The SMSC's answer to bind_receiver."""

    command_id = Command.BIND_RECEIVER | RESPONSE_BIT


class Outbind(Body, frozen=True, gc=False):
    """The SMSC asks us to bind as a receiver."""

    command_id = Command.OUTBIND
    layout = (_CString("system_id", 16), _CString("password", 9))

    system_id: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Outbind(system_id={self.system_id!r})"


class Unbind(Body, frozen=True, gc=False):
    """The peer ends the session."""

    command_id = Command.UNBIND


class UnbindResp(Body, frozen=True, gc=False):
    """The answer to unbind; the connection closes after it."""

    command_id = Command.UNBIND | RESPONSE_BIT


class EnquireLink(Body, frozen=True, gc=False):
    """Is the peer alive?"""

    command_id = Command.ENQUIRE_LINK


class EnquireLinkResp(Body, frozen=True, gc=False):
    """The peer is."""

    command_id = Command.ENQUIRE_LINK | RESPONSE_BIT


class GenericNack(Body, frozen=True, gc=False):
    """The header could not be understood; the status says how."""

    command_id = Command.GENERIC_NACK


class _Message(Body, frozen=True, gc=False):
    layout = _MESSAGE
    has_tlvs = True

    service_type: str = ""
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    source_addr: str = ""
    dest_addr_ton: int = 0
    dest_addr_npi: int = 0
    destination_addr: str = ""
    esm_class: int = 0
    protocol_id: int = 0
    priority_flag: int = 0
    schedule_delivery_time: str = ""
    validity_period: str = ""
    registered_delivery: int = 0
    replace_if_present_flag: int = 0
    data_coding: int = 0
    sm_default_msg_id: int = 0
    short_message: bytes = b""
    tlvs: Tlvs = NO_TLVS

    def __repr__(self) -> str:
        # Numbers and texts stay out of logs and tracebacks.
        return f"{type(self).__name__}(esm_class={self.esm_class:#04x}, data_coding={self.data_coding:#04x})"

    @property
    def text_octets(self) -> bytes:
        """The user data, wherever it is: message_payload holds it when short_message is empty."""
        return self.short_message or self.tlvs.get(Tag.MESSAGE_PAYLOAD, b"")


class SubmitSm(_Message, frozen=True, gc=False):
    """Hand one short message, or one part of one, to the SMSC (channel-providers 1.2.2)."""

    command_id = Command.SUBMIT_SM


class DeliverSm(_Message, frozen=True, gc=False):
    """A receipt or an inbound message from the SMSC (channel-providers 1.2.4, 1.2.5)."""

    command_id = Command.DELIVER_SM


class _MessageResp(Body, frozen=True, gc=False):
    layout = _MESSAGE_ID
    has_tlvs = True

    message_id: str = ""
    tlvs: Tlvs = NO_TLVS


class SubmitSmResp(_MessageResp, frozen=True, gc=False):
    """The SMSC's id for the message; empty when the status refuses it."""

    command_id = Command.SUBMIT_SM | RESPONSE_BIT


class DeliverSmResp(_MessageResp, frozen=True, gc=False):
    """Our answer to deliver_sm: message_id is always empty, one NUL octet."""

    command_id = Command.DELIVER_SM | RESPONSE_BIT


class DataSm(Body, frozen=True, gc=False):
    """The interactive variant of submit_sm and deliver_sm: all content in TLVs."""

    command_id = Command.DATA_SM
    layout = (
        _CString("service_type", 6),
        *_LONG_SOURCE,
        _Octets("dest_addr_ton", "dest_addr_npi"),
        _CString("destination_addr", 65),
        _Octets("esm_class", "registered_delivery", "data_coding"),
    )
    has_tlvs = True

    service_type: str = ""
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    source_addr: str = ""
    dest_addr_ton: int = 0
    dest_addr_npi: int = 0
    destination_addr: str = ""
    esm_class: int = 0
    registered_delivery: int = 0
    data_coding: int = 0
    tlvs: Tlvs = NO_TLVS

    def __repr__(self) -> str:
        return f"DataSm(esm_class={self.esm_class:#04x}, data_coding={self.data_coding:#04x})"

    @property
    def text_octets(self) -> bytes:
        """The user data."""
        return self.tlvs.get(Tag.MESSAGE_PAYLOAD, b"")


class DataSmResp(_MessageResp, frozen=True, gc=False):
    """The answer to data_sm."""

    command_id = Command.DATA_SM | RESPONSE_BIT


class QuerySm(Body, frozen=True, gc=False):
    """Ask how a message is doing."""

    command_id = Command.QUERY_SM
    layout = (_CString("message_id", 65), *_SOURCE)

    message_id: str = ""
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    source_addr: str = ""


class QuerySmResp(Body, frozen=True, gc=False):
    """How it is doing: `message_state` as in receipts, `error_code` by vendor."""

    command_id = Command.QUERY_SM | RESPONSE_BIT
    layout = (_CString("message_id", 65), _CString("final_date", 17), _Octets("message_state", "error_code"))

    message_id: str = ""
    final_date: str = ""
    message_state: int = 0
    error_code: int = 0


class CancelSm(Body, frozen=True, gc=False):
    """Take back a message that is not delivered yet."""

    command_id = Command.CANCEL_SM
    layout = (
        _CString("service_type", 6),
        _CString("message_id", 65),
        *_SOURCE,
        _Octets("dest_addr_ton", "dest_addr_npi"),
        _CString("destination_addr", 21),
    )

    service_type: str = ""
    message_id: str = ""
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    source_addr: str = ""
    dest_addr_ton: int = 0
    dest_addr_npi: int = 0
    destination_addr: str = ""


class CancelSmResp(Body, frozen=True, gc=False):
    """The answer to cancel_sm: only a status."""

    command_id = Command.CANCEL_SM | RESPONSE_BIT


class ReplaceSm(Body, frozen=True, gc=False):
    """Put another text in place of one that is not delivered yet."""

    command_id = Command.REPLACE_SM
    layout = (
        _CString("message_id", 65),
        *_SOURCE,
        _CString("schedule_delivery_time", 17),
        _CString("validity_period", 17),
        _Octets("registered_delivery", "sm_default_msg_id"),
        _ShortMessage(),
    )

    message_id: str = ""
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    source_addr: str = ""
    schedule_delivery_time: str = ""
    validity_period: str = ""
    registered_delivery: int = 0
    sm_default_msg_id: int = 0
    short_message: bytes = b""

    def __repr__(self) -> str:
        return f"ReplaceSm(message_id={self.message_id!r})"


class ReplaceSmResp(Body, frozen=True, gc=False):
    """The answer to replace_sm: only a status."""

    command_id = Command.REPLACE_SM | RESPONSE_BIT


class SubmitMulti(Body, frozen=True):
    """One message to many addresses."""

    command_id = Command.SUBMIT_MULTI
    layout = (
        _CString("service_type", 6),
        *_SOURCE,
        _Destinations(),
        _Octets("esm_class", "protocol_id", "priority_flag"),
        _CString("schedule_delivery_time", 17),
        _CString("validity_period", 17),
        _Octets("registered_delivery", "replace_if_present_flag", "data_coding", "sm_default_msg_id"),
        _ShortMessage(),
    )
    has_tlvs = True

    service_type: str = ""
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    source_addr: str = ""
    destinations: tuple[Destination | DistributionList, ...] = ()
    esm_class: int = 0
    protocol_id: int = 0
    priority_flag: int = 0
    schedule_delivery_time: str = ""
    validity_period: str = ""
    registered_delivery: int = 0
    replace_if_present_flag: int = 0
    data_coding: int = 0
    sm_default_msg_id: int = 0
    short_message: bytes = b""
    tlvs: Tlvs = NO_TLVS

    def __repr__(self) -> str:
        return f"SubmitMulti(destinations={len(self.destinations)})"


class SubmitMultiResp(Body, frozen=True):
    """The id of a submit_multi, and whom it did not reach."""

    command_id = Command.SUBMIT_MULTI | RESPONSE_BIT
    layout = (*_MESSAGE_ID, _Refusals())
    has_tlvs = True

    message_id: str = ""
    refusals: tuple[Refusal, ...] = ()
    tlvs: Tlvs = NO_TLVS

    def __repr__(self) -> str:
        return f"SubmitMultiResp(message_id={self.message_id!r}, refusals={len(self.refusals)})"


class AlertNotification(Body, frozen=True, gc=False):
    """A phone that was away can be reached again. Nobody answers it."""

    command_id = Command.ALERT_NOTIFICATION
    layout = (*_LONG_SOURCE, _Octets("esme_addr_ton", "esme_addr_npi"), _CString("esme_addr", 65))
    has_tlvs = True

    source_addr_ton: int = 0
    source_addr_npi: int = 0
    source_addr: str = ""
    esme_addr_ton: int = 0
    esme_addr_npi: int = 0
    esme_addr: str = ""
    tlvs: Tlvs = NO_TLVS

    def __repr__(self) -> str:
        return "AlertNotification()"


BODIES: Final[Mapping[int, type[Body]]] = {
    kind.command_id: kind
    for kind in (
        BindReceiver, BindReceiverResp, BindTransmitter, BindTransmitterResp, BindTransceiver,
        BindTransceiverResp, Outbind, Unbind, UnbindResp, EnquireLink, EnquireLinkResp, GenericNack,
        SubmitSm, SubmitSmResp, DeliverSm, DeliverSmResp, DataSm, DataSmResp, QuerySm, QuerySmResp,
        CancelSm, CancelSmResp, ReplaceSm, ReplaceSmResp, SubmitMulti, SubmitMultiResp, AlertNotification,
    )
}  # fmt: skip


class Frame(Struct, frozen=True, gc=False):
    """One PDU as it came: its header's facts and its body."""

    sequence: int
    status: int
    body: Body


class Undecodable(Struct, frozen=True, gc=False):
    """A frame that is no PDU we know; `status` is what the peer is told.

    `fatal` means the stream has lost its borders: answer generic_nack and close (channel-providers 1.2.1).
    """

    command_id: int
    sequence: int
    status: int
    fatal: bool = False


class PduStream:
    """Cuts a byte stream into PDUs. Holds at most one unfinished PDU between calls."""

    __slots__ = ("_broken", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._broken = False

    def feed(self, received: bytes) -> list[Frame | Undecodable]:
        """Take what arrived and give every PDU it completes. After a fatal one, nothing more comes."""
        if self._broken:
            return []
        data = self._rest + received if self._rest else received
        found: list[Frame | Undecodable] = []
        at, end = 0, len(data)
        while end - at >= HEADER_BYTES:
            length, command_id, status, sequence = _HEADER.unpack_from(data, at)
            if not HEADER_BYTES <= length <= MAX_PDU_BYTES:
                found.append(Undecodable(command_id, sequence, Status.RINVCMDLEN, fatal=True))
                self._broken, self._rest = True, b""
                return found
            if end - at < length:
                break
            found.append(_read(command_id, status, sequence, data[at + HEADER_BYTES : at + length]))
            at += length
        self._rest = data[at:]
        return found


def _read(command_id: int, status: int, sequence: int, body: bytes) -> Frame | Undecodable:
    kind = BODIES.get(command_id)
    if kind is None:
        return Undecodable(command_id, sequence, Status.RINVCMDID)
    try:
        return Frame(sequence, status, read_body(kind, body))
    except MalformedBody as error:
        return Undecodable(command_id, sequence, error.status)


AnyBody = TypeVar("AnyBody", bound=Body)


def read_body(kind: type[AnyBody], data: bytes) -> AnyBody:
    """Read a body from its octets. Raises MalformedBody.

    A response without a body has its defaults: on a non-zero status SMSCs leave it out (1.2.2).
    """
    if not data and kind.command_id & RESPONSE_BIT:
        return kind()
    values: list[Any] = []
    at = _read_steps(kind.layout, data, 0, values)
    if at < len(data) and kind.has_tlvs:
        values.append(_read_tlvs(data, at))
    return kind(*values)


def _read_tlvs(data: bytes, at: int) -> dict[int, bytes]:
    """Read the optional parameters; of a repeated tag the first counts.

    One that claims more octets than there are ends the list, since losing a receipt over a careless tail is
    worse, but a cut-off message_payload is refused: text would be lost.
    """
    tlvs: dict[int, bytes] = {}
    end = len(data)
    while end - at >= 4:
        tag, length = _TLV_HEADER.unpack_from(data, at)
        at += 4
        if at + length > end:
            if tag == Tag.MESSAGE_PAYLOAD:
                raise MalformedBody("message_payload is cut off", Status.RINVPARLEN)
            break
        tlvs.setdefault(tag, data[at : at + length])
        at += length
    return tlvs


def encode(body: Body, sequence: int, status: int = 0) -> bytes:
    """Write one PDU. Raises UnwritableValue when a field does not fit."""
    chunks: list[bytes] = [b""]
    if not (status and body.command_id & RESPONSE_BIT):
        values = astuple(body)
        _write_steps(body.layout, values, chunks)
        if body.has_tlvs:
            for tag, value in values[-1].items():
                _write_tlv(tag, value, chunks)
    length = HEADER_BYTES + sum(map(len, chunks))
    if length > MAX_PDU_BYTES:
        _too_long(body)
    chunks[0] = _HEADER.pack(length, body.command_id, status, sequence)
    return b"".join(chunks)


def _write_tlv(tag: int, value: bytes, chunks: list[bytes]) -> None:
    if len(value) > 0xFFFF:
        raise UnwritableValue(f"TLV {tag:#06x} takes 65535 octets", Status.RINVPARLEN)
    chunks.append(_TLV_HEADER.pack(tag, len(value)) + value)


def _too_long(body: Body) -> NoReturn:
    raise UnwritableValue(f"{type(body).__name__} is longer than {MAX_PDU_BYTES} octets", Status.RINVCMDLEN)


class Status(IntEnum):
    """command_status (channel-providers 1.2.3). What each means for a message is in `codes`."""

    ROK = 0x00
    RINVMSGLEN = 0x01
    RINVCMDLEN = 0x02
    RINVCMDID = 0x03
    RINVBNDSTS = 0x04
    RALYBND = 0x05
    RINVPRTFLG = 0x06
    RINVREGDLVFLG = 0x07
    RSYSERR = 0x08
    RINVSRCADR = 0x0A
    RINVDSTADR = 0x0B
    RINVMSGID = 0x0C
    RBINDFAIL = 0x0D
    RINVPASWD = 0x0E
    RINVSYSID = 0x0F
    RCANCELFAIL = 0x11
    RREPLACEFAIL = 0x13
    RMSGQFUL = 0x14
    RINVSERTYP = 0x15
    RINVNUMDESTS = 0x33
    RINVDLNAME = 0x34
    RINVDESTFLAG = 0x40
    RINVSUBREP = 0x42
    RINVESMCLASS = 0x43
    RCNTSUBDL = 0x44
    RSUBMITFAIL = 0x45
    RINVSRCTON = 0x48
    RINVSRCNPI = 0x49
    RINVDSTTON = 0x50
    RINVDSTNPI = 0x51
    RINVSYSTYP = 0x53
    RINVREPFLAG = 0x54
    RINVNUMMSGS = 0x55
    RTHROTTLED = 0x58
    RINVSCHED = 0x61
    RINVEXPIRY = 0x62
    RINVDFTMSGID = 0x63
    RX_T_APPN = 0x64
    RX_P_APPN = 0x65
    RX_R_APPN = 0x66
    RQUERYFAIL = 0x67
    RINVOPTPARSTREAM = 0xC0
    ROPTPARNOTALLWD = 0xC1
    RINVPARLEN = 0xC2
    RMISSINGOPTPARAM = 0xC3
    RINVOPTPARAMVAL = 0xC4
    RDELIVERYFAILURE = 0xFE
    RUNKNOWNERR = 0xFF
    RSERTYPUNAUTH = 0x100
    RPROHIBITED = 0x101
    RSERTYPUNAVAIL = 0x102
    RSERTYPDENIED = 0x103
    RINVDCS = 0x104
