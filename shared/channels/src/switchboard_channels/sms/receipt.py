"""Delivery receipts: what an SMSC tells in a deliver_sm about something it took (channel-providers 1.2.4).

A scanner that throws loses receipts silently, so nothing here raises for what an SMSC wrote.
"""

import re
from enum import IntEnum, StrEnum
from typing import Final

from msgspec import Struct

from switchboard_channels.sms.pdu import Tag, Tlvs


class MessageState(IntEnum):
    """message_state, and the number of each `stat:` word."""

    SCHEDULED = 0
    ENROUTE = 1
    DELIVERED = 2
    EXPIRED = 3
    DELETED = 4
    UNDELIVERABLE = 5
    ACCEPTED = 6
    UNKNOWN = 7
    REJECTED = 8
    SKIPPED = 9


class ReceiptIdForm(StrEnum):
    """How an SMSC's receipt ids relate to those of its answers: a fact of the account, learnt in use."""

    #: Not learnt yet: any known relation counts, the plain one first.
    ANY = "any"
    #: The same octets.
    SAME = "same"
    #: Hexadecimal in the answer, decimal in the receipt.
    DECIMAL_OF_HEX = "decimal_of_hex"
    #: Decimal in the answer, hexadecimal in the receipt.
    HEX_OF_DECIMAL = "hex_of_decimal"


class MessagingMode(StrEnum):
    """What a deliver_sm is, by the message type bits of its esm_class."""

    MESSAGE = "message"
    RECEIPT = "receipt"
    INTERMEDIATE = "intermediate"
    #: A handset or user acknowledgement: neither a receipt nor a message.
    ACKNOWLEDGEMENT = "acknowledgement"


class Receipt(Struct, frozen=True):
    """What a receipt says, from its TLVs where they are, else from its text."""

    #: As the SMSC spells it; "" if it names no message.
    message_id: str
    #: None if it says nothing that is known.
    state: MessageState | None
    #: The SMSC's error as written, "" for none: often no number (`1a0`).
    error: str = ""
    #: Mobile country and network code of the recipient's operator, "" if not told.
    operator: str = ""


_WORDS: Final = {
    "SCHEDULED": MessageState.SCHEDULED,
    "ENROUTE": MessageState.ENROUTE,
    "DELIVRD": MessageState.DELIVERED,
    "DELIVERED": MessageState.DELIVERED,
    "EXPIRED": MessageState.EXPIRED,
    "DELETED": MessageState.DELETED,
    "UNDELIV": MessageState.UNDELIVERABLE,
    "UNDELIVERABLE": MessageState.UNDELIVERABLE,
    "ACCEPTD": MessageState.ACCEPTED,
    "ACCEPTED": MessageState.ACCEPTED,
    "UNKNOWN": MessageState.UNKNOWN,
    "REJECTD": MessageState.REJECTED,
    "REJECTED": MessageState.REJECTED,
    "SKIPPED": MessageState.SKIPPED,
}

#: A key of the text form. Each value runs to the next key; that of `text` to the end, whatever it holds.
_KEY: Final = re.compile(r"(?<![^\s;,])(id|sub|dlvrd|submit[ _]?date|done[ _]?date|stat|err|text)\s*:", re.IGNORECASE)
_OPERATOR: Final = re.compile(r"\d{5,6}")
_HEX: Final = re.compile(r"[0-9a-fA-F]+")


def mode_of(esm_class: int) -> MessagingMode:
    """Tell a receipt from a message."""
    match esm_class & 0x3C:
        case 0x04:
            return MessagingMode.RECEIPT
        case 0x20:
            return MessagingMode.INTERMEDIATE
        case 0x08 | 0x10 | 0x18:
            return MessagingMode.ACKNOWLEDGEMENT
        case _:
            return MessagingMode.MESSAGE


def fields(text: str) -> dict[str, str]:
    """Scan the text form. Keys lose case and blanks (`donedate`); of a repeated key the first counts."""
    found: dict[str, str] = {}
    keys = list(_KEY.finditer(text))
    for index, key in enumerate(keys):
        name = re.sub(r"[ _]", "", key[1].lower())
        if name == "text":
            found.setdefault(name, text[key.end() :])
            break
        end = keys[index + 1].start() if index + 1 < len(keys) else len(text)
        found.setdefault(name, text[key.end() : end].strip(" \t\r\n;,"))
    return found


def read_receipt(text: str, tlvs: Tlvs) -> Receipt:
    """Read a receipt from its TLVs, and from its text what they leave out."""
    written = fields(text)
    return Receipt(
        message_id=_c_string(tlvs.get(Tag.RECEIPTED_MESSAGE_ID)) or _first_word(written.get("id", "")),
        state=_state(tlvs.get(Tag.MESSAGE_STATE), written.get("stat", "")),
        error=_error(written.get("err", ""), tlvs.get(Tag.NETWORK_ERROR_CODE)),
        operator=operator_of(tlvs),
    )


def operator_of(tlvs: Tlvs) -> str:
    """The operator's MCC and MNC, as `23430`; "" if the SMSC does not tell (TLV 0x1403)."""
    code = _c_string(tlvs.get(Tag.MCCMNC))
    return code if _OPERATOR.fullmatch(code) else ""


def canonical_id(message_id: str, form: ReceiptIdForm = ReceiptIdForm.ANY) -> str:
    """The spelling under which an answer's id is recorded: lower case, no leading zeros, unless exact."""
    if form is ReceiptIdForm.SAME:
        return message_id
    return message_id.lower().lstrip("0") or message_id[:1]


def spellings(message_id: str, form: ReceiptIdForm = ReceiptIdForm.ANY) -> tuple[str, ...]:
    """Every recorded id a receipt's id may mean, the likeliest first.

    An all-digit id may mean two: whoever looks them up restricts the search by recipient.
    """
    plain = canonical_id(message_id, form)
    match form:
        case ReceiptIdForm.SAME:
            return (plain,)
        case ReceiptIdForm.DECIMAL_OF_HEX:
            return tuple(_distinct(_hex_of(plain) or plain))
        case ReceiptIdForm.HEX_OF_DECIMAL:
            return tuple(_distinct(_decimal_of(plain) or plain))
        case ReceiptIdForm.ANY:
            return tuple(_distinct(plain, _hex_of(plain), _decimal_of(plain)))


def _hex_of(decimal: str) -> str:
    return f"{int(decimal):x}" if decimal.isascii() and decimal.isdigit() else ""


def _decimal_of(hexadecimal: str) -> str:
    return str(int(hexadecimal, 16)) if _HEX.fullmatch(hexadecimal) else ""


def _distinct(*ids: str) -> dict[str, None]:
    return dict.fromkeys(spelling for spelling in ids if spelling)


def _state(tlv: bytes | None, word: str) -> MessageState | None:
    if tlv:
        try:
            return MessageState(tlv[0])
        except ValueError:
            pass
    return _WORDS.get(_first_word(word).upper())


def _error(word: str, tlv: bytes | None) -> str:
    written = _first_word(word)
    if written.strip("0"):
        return written
    # One octet of network type, two of code.
    if tlv is not None and len(tlv) >= 3 and any(tlv[1:3]):
        return str(int.from_bytes(tlv[1:3], "big"))
    return ""


def _first_word(text: str) -> str:
    return text.split(maxsplit=1)[0] if text.strip() else ""


def _c_string(octets: bytes | None) -> str:
    return octets.split(b"\0", 1)[0].decode("latin-1").strip() if octets else ""
