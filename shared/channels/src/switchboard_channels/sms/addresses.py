"""Addresses on SMPP: type of number and numbering plan, by account (channel-providers 1.2.2)."""

import re
from enum import IntEnum
from functools import lru_cache
from typing import Final

from msgspec import Struct

from switchboard_channels.sms.encoding import to_gsm7

#: An alphanumeric sender takes at most this many septets.
MAX_ALPHANUMERIC: Final = 11

_SHORT_CODE: Final = re.compile(r"\d{3,8}")
_NUMBER: Final = re.compile(r"\+?\d{7,20}")


class Ton(IntEnum):
    """Type of number."""

    UNKNOWN = 0
    INTERNATIONAL = 1
    NATIONAL = 2
    NETWORK_SPECIFIC = 3
    SUBSCRIBER = 4
    ALPHANUMERIC = 5
    ABBREVIATED = 6


class Npi(IntEnum):
    """Numbering plan."""

    UNKNOWN = 0
    ISDN = 1


class Address(Struct, frozen=True, gc=False):
    """An address as a PDU carries it."""

    ton: int
    npi: int
    address: str

    def __repr__(self) -> str:
        return f"Address(ton={self.ton}, npi={self.npi})"


class AddressRules(Struct, frozen=True):
    """Which TON and NPI one SMSC wants for which address. Short codes vary most."""

    international: tuple[int, int] = (Ton.INTERNATIONAL, Npi.ISDN)
    #: Sinch wants TON 0 and NPI 1, so that handsets can reply; others 3 or 6 with 0.
    short_code: tuple[int, int] = (Ton.UNKNOWN, Npi.ISDN)
    alphanumeric: tuple[int, int] = (Ton.ALPHANUMERIC, Npi.UNKNOWN)


class InvalidSender(ValueError):
    """This text cannot be a sender on SMS."""


def destination(number: str, rules: AddressRules) -> Address:
    """The address of a recipient: digits only, no plus."""
    return Address(*rules.international, number.removeprefix("+"))


@lru_cache(maxsize=4096)
def source(sender: str, rules: AddressRules) -> Address:
    """The address of a sender: a number, a short code of 3 to 8 digits, or letters.

    Raises InvalidSender for an alphanumeric one over 11 characters, or outside what SMPP can carry.
    """
    if _SHORT_CODE.fullmatch(sender):
        return Address(*rules.short_code, sender)
    if _NUMBER.fullmatch(sender):
        return Address(*rules.international, sender.removeprefix("+"))
    septets = to_gsm7(sender)
    if not sender or septets is None or not sender.isascii():
        raise InvalidSender("the sender has characters that an SMS sender cannot have")
    if len(septets) > MAX_ALPHANUMERIC:
        raise InvalidSender(f"an alphanumeric sender takes at most {MAX_ALPHANUMERIC} characters")
    return Address(*rules.alphanumeric, sender)


def identity(ton: int, address: str) -> str:
    """The channel identity behind a phone's address: its digits, "" unless it is an international number.

    Short codes and national numbers name nobody outside their network.
    """
    digits = address.removeprefix("+")
    return digits if ton in (Ton.UNKNOWN, Ton.INTERNATIONAL) and digits.isdigit() else ""
