"""Our content as SMS: the text, its parts, and the submit_sm that carry them. Pure."""

from collections.abc import Mapping
from typing import Final
from zlib import crc32

from msgspec import Struct

from switchboard.channel.errors import Unsupported
from switchboard.channel.preview import Preview
from switchboard.content import AppMessage, TextMessage
from switchboard.ids import MessageId
from switchboard.reason import Reason, ReasonCode
from switchboard.transcode import for_channel, select
from switchboard_channels.sms.account import SmscAccount
from switchboard_channels.sms.addresses import Address, InvalidSender, destination, source
from switchboard_channels.sms.concat import LongMessages, wire_parts
from switchboard_channels.sms.encoding import (
    MAX_PARTS,
    Alphabet,
    DataCoding,
    Segmentation,
    default_octets,
    from_gsm7,
    from_ucs2,
    plain_punctuation,
    segment,
)
from switchboard_channels.sms.manifest import MANIFEST
from switchboard_channels.sms.pdu import SubmitSm, Tag, Tlvs

#: registered_delivery: a receipt for the final state, whatever it is (channel-providers 1.2.2).
FINAL_RECEIPT: Final = 0x01
#: data_coding of a message class 0 in the default alphabet, as some SMSCs want it.
_CLASS_0: Final = 0xF0

_NOBODY: Final = Address(0, 0, "")
#: What messages are cut for where the account is not known.
_USUAL_ACCOUNT: Final = SmscAccount(host="unknown", system_id="unknown")  # type: ignore[call-arg]


class Rendered(Struct, frozen=True):
    """A message as one SMSC account will carry it."""

    source: Address
    destination: Address
    data_coding: int
    #: Octets of each part, without headers.
    parts: tuple[bytes, ...]


def text_of(message: AppMessage) -> str:
    """The text a phone will show. Raises Unsupported for content SMS cannot carry."""
    chosen = select(message, MANIFEST.channel)
    if isinstance(chosen, TextMessage):
        return chosen.text
    carried = for_channel(message, MANIFEST)
    if carried.text_message is not None:
        return carried.text_message.text
    return carried.explicit_channel_message[MANIFEST.channel]


def units(message: AppMessage, channel_properties: Mapping[str, str]) -> int:
    """How many parts the message takes, as most accounts cut it. Raises Unsupported."""
    return len(segment(text_of(message)).parts)


def render(
    message: AppMessage, recipient: str, channel_properties: Mapping[str, str], account: SmscAccount
) -> Rendered:
    """Turn a message into what this account sends.

    Raises Unsupported with the reason: content SMS cannot carry, an impossible sender or property
    (BAD_REQUEST), more parts than allowed (MESSAGE_SPLIT_REQUIRED; nothing is cut off).
    """
    segmentation = _segmented(message, channel_properties, account)
    rules = account.address_rules
    return Rendered(
        _sender(channel_properties.get("SMS_SENDER") or account.default_sender, account),
        destination(recipient, rules),
        _data_coding(segmentation.alphabet, _is_flash(channel_properties), account),
        _octets(segmentation, account),
    )


def preview(
    message: AppMessage,
    recipient: str,
    message_id: MessageId,
    channel_properties: Mapping[str, str],
    settings: SmscAccount | None,
) -> Preview:
    """The parts of a message as this account cuts them. Raises Unsupported as `render` does."""
    account = settings or _USUAL_ACCOUNT
    segmentation = _segmented(message, channel_properties, account)
    sender = _sender(channel_properties.get("SMS_SENDER") or account.default_sender, account).address
    read = from_ucs2 if segmentation.alphabet is Alphabet.UCS2 else from_gsm7
    return Preview(
        units=len(segmentation.parts),
        encoding=segmentation.alphabet.value,
        submissions=tuple({"sender": sender, "text": read(part)} for part in segmentation.parts),
    )


def _segmented(message: AppMessage, channel_properties: Mapping[str, str], account: SmscAccount) -> Segmentation:
    text = text_of(message)
    if account.plain_punctuation:
        text = plain_punctuation(text)
    segmentation = segment(text, reference_bits=account.reference_bits, default_alphabet=account.default_alphabet)
    _check_parts(len(segmentation.parts), channel_properties)
    return segmentation


def submits(
    rendered: Rendered, account: SmscAccount, *, reference: int, attempt_id: str, ttl_seconds: int | None
) -> tuple[SubmitSm, ...]:
    """The submit_sm of each part, in order. `reference` is what says that parts belong together."""
    validity = "" if ttl_seconds is None else validity_period(ttl_seconds, account.longest_validity_seconds)
    named: Tlvs = {Tag.USER_MESSAGE_REFERENCE: attempt_reference(attempt_id)} if account.user_message_reference else {}
    return tuple(
        SubmitSm(
            service_type=account.service_type,
            source_addr_ton=rendered.source.ton,
            source_addr_npi=rendered.source.npi,
            source_addr=rendered.source.address,
            dest_addr_ton=rendered.destination.ton,
            dest_addr_npi=rendered.destination.npi,
            destination_addr=rendered.destination.address,
            esm_class=part.esm_class,
            validity_period=validity,
            registered_delivery=FINAL_RECEIPT,
            data_coding=rendered.data_coding,
            short_message=part.short_message,
            tlvs={**part.tlvs, **named} if part.tlvs else named,
        )
        for part in wire_parts(rendered.parts, account.long_messages, reference, reference_bits=account.reference_bits)
    )


def reference_name(reference: bytes) -> str:
    """What a part is called whose id is not known, in its outcome and in receipts that echo the reference."""
    return f"reference:{reference.hex()}"


def attempt_reference(attempt_id: str) -> bytes:
    """user_message_reference of an attempt: two octets made from its id, the same on every part."""
    return (crc32(attempt_id.encode()) & 0xFFFF).to_bytes(2, "big")


def validity_period(ttl_seconds: int, longest_seconds: int) -> str:
    """A TTL in the relative form of SMPP: 10 minutes are `000000001000000R` (channel-providers 1.2.2)."""
    minutes, seconds = divmod(max(1, min(ttl_seconds, longest_seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"0000{days:02}{hours:02}{minutes:02}{seconds:02}000R"


def _check_parts(count: int, channel_properties: Mapping[str, str]) -> None:
    most = MAX_PARTS
    wanted = channel_properties.get("SMS_MAX_NUMBER_OF_MESSAGE_PARTS")
    if wanted is not None:
        if not (wanted.isascii() and wanted.isdigit() and int(wanted) > 0):
            raise _bad_request("SMS_MAX_NUMBER_OF_MESSAGE_PARTS is not a positive number.")
        most = min(most, int(wanted))
    if count > most:
        words = f"The message takes {count} parts, and {most} are allowed."
        raise Unsupported(Reason(ReasonCode.MESSAGE_SPLIT_REQUIRED, words))


def _is_flash(channel_properties: Mapping[str, str]) -> bool:
    return channel_properties.get("SMS_FLASH_MESSAGE", "").strip().lower() == "true"


def _sender(sender: str, account: SmscAccount) -> Address:
    if not sender:
        # The SMSC puts in the account's own.
        return _NOBODY
    try:
        return source(sender, account.address_rules)
    except InvalidSender as error:
        raise _bad_request(f"SMS_SENDER: {error}.") from error


def _data_coding(alphabet: Alphabet, is_flash: bool, account: SmscAccount) -> int:
    match alphabet, is_flash:
        case Alphabet.UCS2, False:
            return DataCoding.UCS2
        case Alphabet.UCS2, True:
            return DataCoding.FLASH_UCS2
        case Alphabet.GSM7, True:
            return _CLASS_0 if account.flash_uses_f0 else DataCoding.FLASH_DEFAULT
        case _:
            return DataCoding.DEFAULT


def _octets(segmentation: Segmentation, account: SmscAccount) -> tuple[bytes, ...]:
    if segmentation.alphabet is Alphabet.UCS2:
        return segmentation.parts
    return tuple(default_octets(part, account.default_alphabet) for part in segmentation.parts)


def needs_reference(rendered: Rendered, account: SmscAccount) -> bool:
    """Whether the parts have to say that they belong together."""
    return len(rendered.parts) > 1 and account.long_messages is not LongMessages.PAYLOAD


def _bad_request(words: str) -> Unsupported:
    return Unsupported(Reason(ReasonCode.BAD_REQUEST, words))
