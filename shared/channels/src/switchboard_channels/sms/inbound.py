"""What a deliver_sm or data_sm from the SMSC means: a receipt, a message, or a part of one (1.2.4, 1.2.5).

Pure, but for the memory that tells a text sent twice from a delivery made twice.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct

from switchboard.channel.contract import Fact, InboundFact, InboundPart, ReceiptFact, UnsupportedFact
from switchboard.content import ContactMessage, TextMessage
from switchboard_channels.sms.account import SmscAccount
from switchboard_channels.sms.addresses import identity
from switchboard_channels.sms.codes import receipt_status
from switchboard_channels.sms.concat import user_data
from switchboard_channels.sms.encoding import decode
from switchboard_channels.sms.pdu import DataSm, DeliverSm, Tag
from switchboard_channels.sms.receipt import MessagingMode, mode_of, operator_of, read_receipt, spellings
from switchboard_channels.sms.render import reference_name

#: A delivery that looks like an earlier one is the same for this long, unless the SMSC knows we had it.
REPEATS_FOR: Final = timedelta(minutes=15)
#: No SMSC gives up on an answer sooner; two equal deliveries closer than this are two messages.
RESENT_AFTER: Final = timedelta(seconds=5)


class Nothing(Struct, frozen=True):
    """A delivery that changes nothing: an intermediate notification, an acknowledgement by a handset."""

    why: str


class _Content(Struct, frozen=True, array_like=True):
    """What a stored part has to know to become a message with the others."""

    source: str
    destination: str
    data_coding: int
    octets: bytes
    operator: str


def read_delivery(
    body: DeliverSm | DataSm, account: SmscAccount, received_at: datetime, provider_id: str
) -> Fact | InboundPart | Nothing:
    """Say what a delivery is. `provider_id` names it if it is a message; nothing here raises."""
    match mode_of(body.esm_class):
        case MessagingMode.RECEIPT:
            return _receipt(body, account, received_at, provider_id)
        case MessagingMode.MESSAGE:
            return _message(body, account, received_at, provider_id)
        case other:
            return Nothing(other)


def _receipt(body: DeliverSm | DataSm, account: SmscAccount, received_at: datetime, provider_id: str) -> Fact | Nothing:
    text = decode(body.data_coding, body.text_octets, account.default_alphabet)
    # The text form is ASCII, and some SMSCs send it under whatever data_coding the message had.
    if text is None or (Tag.RECEIPTED_MESSAGE_ID not in body.tlvs and "id:" not in text.lower()):
        text = body.text_octets.decode("latin-1")
    receipt = read_receipt(text, body.tlvs)
    told = receipt_status(receipt, account.receipt_errors, accepted_is_delivered=account.accepted_is_delivered)
    if not receipt.message_id or receipt.state is None:
        return UnsupportedFact(provider_id, text, received_at, identity(body.source_addr_ton, body.source_addr))
    if told is None:
        return Nothing(receipt.state.name)
    status, reason = told
    reference = body.tlvs.get(Tag.USER_MESSAGE_REFERENCE)
    return ReceiptFact(
        # The reference comes last: only where no answer told an id, it is what the outcome knows (1.2.4).
        provider_ids=(
            *spellings(receipt.message_id, account.receipt_ids),
            *((reference_name(reference),) if reference else ()),
        ),
        status=status,
        event_at=received_at,
        identity=identity(body.source_addr_ton, body.source_addr),
        reason=reason,
        channel_metadata=_metadata(receipt.operator),
    )


def _message(
    body: DeliverSm | DataSm, account: SmscAccount, received_at: datetime, provider_id: str
) -> Fact | InboundPart:
    data = user_data(body.esm_class, body.text_octets, body.tlvs)
    content = _Content(
        body.source_addr.removeprefix("+"),
        body.destination_addr.removeprefix("+"),
        body.data_coding,
        data.octets,
        operator_of(body.tlvs),
    )
    if data.part is None:
        return _inbound([content], account, received_at, provider_id)
    return InboundPart(
        group=_digest(content.source, content.destination, data.part.reference, data.part.total, body.data_coding),
        number=data.part.number,
        total=data.part.total,
        content=msgspec.msgpack.encode(content),
        received_at=received_at,
    )


def put_together(parts: Sequence[InboundPart], account: SmscAccount) -> Fact:
    """The message that parts make, in the order given. Equal parts always make the same provider id.

    Also for a group whose last parts never came: what is there is the message.
    """
    contents = [msgspec.msgpack.decode(part.content, type=_Content) for part in parts]
    provider_id = _digest(parts[0].group, *(content.octets.hex() for content in contents))
    return _inbound(contents, account, max(part.received_at for part in parts), provider_id)


def _inbound(contents: Sequence[_Content], account: SmscAccount, received_at: datetime, provider_id: str) -> Fact:
    first = contents[0]
    # Joined before decoding, since senders cut between the halves of a character.
    octets = b"".join(content.octets for content in contents)
    text = decode(first.data_coding, octets, account.default_alphabet)
    if text is None:
        payload = f"data_coding {first.data_coding:#04x}: {octets.hex()}"
        return UnsupportedFact(provider_id, payload, received_at, first.source)
    return InboundFact(
        provider_id=provider_id,
        identity=first.source,
        message=ContactMessage(text_message=TextMessage(text)),
        event_at=received_at,
        sender_id=first.destination,
        channel_metadata=_metadata(first.operator),
    )


def _metadata(operator: str) -> dict[str, str]:
    return {"operator": operator} if operator else {}


def fingerprint(body: DeliverSm | DataSm) -> str:
    """What two deliveries of one message have in common: SMPP gives inbound messages no id of their own."""
    return _digest(
        body.source_addr,
        body.destination_addr,
        body.esm_class,
        body.data_coding,
        body.text_octets.hex(),
        body.tlvs.get(Tag.RECEIPTED_MESSAGE_ID, b"").hex(),
        body.tlvs.get(Tag.USER_MESSAGE_REFERENCE, b"").hex(),
    )


def _digest(*parts: str | int) -> str:
    return blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()


class Delivery(Struct):
    """One delivery as this process remembers it."""

    provider_id: str
    received_at: datetime
    #: Set when the connection it came on is gone.
    closed: asyncio.Event
    is_answered: bool = False


class Deliveries:
    """Names inbound deliveries, so that one made twice has one name and a text sent twice has two.

    An SMSC that had no answer delivers again, perhaps on another bind; SMPP gives it no way to say so. What we
    know: it does not deliver again what we answered on a connection that still stands, nor before its timer
    ran. Anything else that looks the same within some minutes is the same. Names are made from content and time
    slice, so another process makes the same name.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._known: OrderedDict[str, Delivery] = OrderedDict()
        self._counts: dict[str, int] = {}
        self._limit = limit

    def name(self, body: DeliverSm | DataSm, closed: asyncio.Event, now: datetime) -> Delivery:
        """The delivery this is; the same object again while it is the same delivery."""
        mark = fingerprint(body)
        if mode_of(body.esm_class) is not MessagingMode.MESSAGE:
            # Receipts are known by the id they carry; the same one twice is a fact told twice.
            return Delivery(mark, now, closed)
        before = self._known.get(mark)
        if before is not None and _is_repeat(before, closed, now):
            return before
        recent = before is not None and now - before.received_at <= REPEATS_FOR
        count = self._counts[mark] + 1 if recent else 0
        slice_of_time = int(now.timestamp() // REPEATS_FOR.total_seconds())
        delivery = Delivery(_digest(mark, slice_of_time, count), now, closed)
        self._known[mark] = delivery
        self._known.move_to_end(mark)
        self._counts[mark] = count
        if len(self._known) > self._limit:
            oldest, _ = self._known.popitem(last=False)
            del self._counts[oldest]
        return delivery


def _is_repeat(before: Delivery, closed: asyncio.Event, now: datetime) -> bool:
    age = now - before.received_at
    if age > REPEATS_FOR:
        return False
    if before.is_answered and not before.closed.is_set():
        return False
    return not (before.closed is closed and age < RESENT_AFTER)
