"""Text to octets and back: the GSM 7-bit alphabet, UCS-2, and how a text is cut into parts.

Facts: channel-providers 1.1. Septets travel one to an octet, unpacked (1.2.2, data_coding 0x00).
"""

import codecs
import re
from enum import IntEnum, StrEnum
from typing import Final

from msgspec import Struct

from switchboard_channels.sms import graphemes

ESCAPE: Final = 0x1B

#: Septets, or UTF-16 code units, that fit a text that is not cut.
SINGLE_SEPTETS: Final = 160
SINGLE_UNITS: Final = 70
#: A part's header takes 7 septets or 3 units with an 8-bit reference, 8 or 4 with a 16-bit one.
PART_SEPTETS: Final = {8: 153, 16: 152}
PART_UNITS: Final = {8: 67, 16: 66}
#: The total in a part's header is one octet.
MAX_PARTS: Final = 255

_BASIC: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION: Final = {
    0x0A: "\f", 0x14: "^", 0x28: "{", 0x29: "}", 0x2F: "\\", 0x3C: "[", 0x3D: "~", 0x3E: "]", 0x40: "|",
    0x65: "€",
}  # fmt: skip

_TO_SEPTETS: Final[dict[int, bytes]] = {
    ord(character): bytes((code,)) for code, character in enumerate(_BASIC) if code != ESCAPE
} | {ord(character): bytes((ESCAPE, code)) for code, character in _EXTENSION.items()}

#: An escape and the code it changes, which a split keeps.
_ESCAPED: Final = re.compile(b"\x1b(.?)", re.DOTALL)

_PLAIN: Final = str.maketrans(
    {
        "‘": "'", "’": "'", "‚": "'", "‛": "'", "“": '"', "”": '"', "„": '"', "‟": '"', "′": "'", "″": '"',
        "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-", "…": "...", "\u00a0": " ",
        "\u202f": " ", "\u2009": " ", "`": "'", "\t": " ",
    }
)  # fmt: skip


class Alphabet(StrEnum):
    """How the characters of one text become octets."""

    GSM7 = "GSM7"
    UCS2 = "UCS2"


class DefaultAlphabet(StrEnum):
    """What an SMSC means by data_coding 0x00: a fact of the account."""

    GSM7 = "GSM7"
    LATIN1 = "LATIN1"
    ASCII = "ASCII"


class Segmentation(Struct, frozen=True):
    """A text cut into parts."""

    alphabet: Alphabet
    #: Each part's own octets, without any header: septets unpacked, or UTF-16 big endian.
    parts: tuple[bytes, ...]
    #: Septets or code units of the whole text: what a price list counts.
    units: int


def to_gsm7(text: str) -> bytes | None:
    """Encode in GSM 7-bit, one septet to an octet; None when a character is not in the alphabet."""
    try:
        return codecs.charmap_encode(text, "strict", _TO_SEPTETS)[0]
    except UnicodeEncodeError:
        return None


def from_gsm7(septets: bytes) -> str:
    """Decode unpacked septets.

    An escape before a code that the extension table lacks shows as the character of the default table, as
    phones do; octets above 0x7F and an escape at the end become U+FFFD.
    """
    pieces = _ESCAPED.split(septets)
    pairs = zip(pieces[::2], [*pieces[1::2], None], strict=True)
    return "".join(_basic(plain) + ("" if code is None else _extended(code)) for plain, code in pairs)


def _basic(septets: bytes) -> str:
    return codecs.charmap_decode(septets, "replace", _BASIC)[0]


def _extended(code: bytes) -> str:
    if not code or code[0] >= 0x80 or code[0] == ESCAPE:
        return "\ufffd"
    return _EXTENSION.get(code[0], _BASIC[code[0]])


def to_ucs2(text: str) -> bytes:
    """Encode in UTF-16 big endian, two octets a code unit. A lone surrogate becomes a question mark."""
    return text.encode("utf-16-be", "replace")


def from_ucs2(octets: bytes) -> str:
    """Decode UTF-16 big endian; what is broken becomes U+FFFD."""
    return octets.decode("utf-16-be", "replace")


class DataCoding(IntEnum):
    """Values of data_coding that we write (channel-providers 1.2.2)."""

    DEFAULT = 0x00
    UCS2 = 0x08
    #: Message class 0: shown at once and not kept.
    FLASH_DEFAULT = 0x10
    FLASH_UCS2 = 0x18


#: Code pages of the plain values; 0x00 is the account's default, 0x02 and 0x04 are binary.
_CODE_PAGES: Final = {
    0x01: "latin-1",  # IA5: ASCII, but senders are careless
    0x03: "latin-1",
    0x05: "shift_jis",
    0x06: "iso8859-5",
    0x07: "iso8859-8",
    0x08: "utf-16-be",
    0x0A: "iso2022_jp",
    0x0D: "euc_jp",
    0x0E: "euc_kr",
}


def decode(data_coding: int, octets: bytes, default: DefaultAlphabet = DefaultAlphabet.GSM7) -> str | None:
    """Read text octets as their data_coding says; None for binary data. What is broken becomes U+FFFD."""
    if data_coding >= 0xF0:
        # Data coding with a message class: bit 2 tells binary from the default alphabet.
        return None if data_coding & 0x04 else _default_text(octets, default)
    if 0x10 <= data_coding <= 0x3F:
        # General data coding: bits 3 and 2 tell the alphabet.
        return (_default_text(octets, default), None, from_ucs2(octets), None)[data_coding >> 2 & 3]
    if page := _CODE_PAGES.get(data_coding):
        return octets.decode(page, "replace")
    return None if data_coding in (0x02, 0x04) else _default_text(octets, default)


def _default_text(octets: bytes, default: DefaultAlphabet) -> str:
    return from_gsm7(octets) if default is DefaultAlphabet.GSM7 else octets.decode("latin-1")


def plain_punctuation(text: str) -> str:
    """Put plain quotes, hyphens and spaces where typographic ones would force UCS-2: only where asked for."""
    return text.translate(_PLAIN)


def segment(
    text: str, *, reference_bits: int = 8, default_alphabet: DefaultAlphabet = DefaultAlphabet.GSM7
) -> Segmentation:
    """Cut a text into as few parts as it needs, without splitting an escape pair or a surrogate pair.

    A grapheme cluster stays whole unless it alone is longer than a part. `reference_bits` is the size of the
    concatenation reference, 8 or 16. On an SMSC whose default alphabet is not GSM 7-bit, only texts that also
    fit that alphabet go without UCS-2; they are counted in septets, since septets are what the phone gets.
    """
    septets = to_gsm7(text)
    if septets is not None and _fits(text, default_alphabet):
        return _segment_septets(septets, PART_SEPTETS[reference_bits])
    return _segment_units(text, PART_UNITS[reference_bits])


def default_octets(part: bytes, default_alphabet: DefaultAlphabet) -> bytes:
    """Spell a GSM 7-bit part in the SMSC's default alphabet."""
    if default_alphabet is DefaultAlphabet.GSM7:
        return part
    return from_gsm7(part).encode("latin-1")


def _fits(text: str, default_alphabet: DefaultAlphabet) -> bool:
    match default_alphabet:
        case DefaultAlphabet.GSM7:
            return True
        case DefaultAlphabet.ASCII:
            return text.isascii()
        case DefaultAlphabet.LATIN1:
            return all(ord(character) < 0x100 for character in text)


def _segment_septets(septets: bytes, size: int) -> Segmentation:
    total = len(septets)
    if total <= SINGLE_SEPTETS:
        return Segmentation(Alphabet.GSM7, (septets,), total)
    parts = []
    start = 0
    while total - start > size:
        end = start + size
        # The code after an escape is never an escape, so an escape in last place is the first half of a pair.
        # CR LF is the only grapheme cluster of two that this alphabet can spell.
        if septets[end - 1] == ESCAPE or septets[end - 1 : end + 1] == b"\r\n":
            end -= 1
        parts.append(septets[start:end])
        start = end
    parts.append(septets[start:])
    return Segmentation(Alphabet.GSM7, tuple(parts), total)


def _segment_units(text: str, size: int) -> Segmentation:
    octets = to_ucs2(text)
    total = len(octets) // 2
    if total <= SINGLE_UNITS:
        return Segmentation(Alphabet.UCS2, (octets,), total)
    parts = []
    start, start_unit = 0, 0
    while total - start_unit > size:
        end, taken = _reach(text, start, size)
        cut = graphemes.last_boundary(text, start, end)
        if cut > start:
            taken -= _units(text[cut:end])
            end = cut
        parts.append(octets[2 * start_unit : 2 * (start_unit + taken)])
        start, start_unit = end, start_unit + taken
    parts.append(octets[2 * start_unit :])
    return Segmentation(Alphabet.UCS2, tuple(parts), total)


def _reach(text: str, start: int, size: int) -> tuple[int, int]:
    """How many characters from `start` fit `size` units: the index after the last, and their units."""
    end, taken = start, 0
    while taken < size:
        units = 2 if text[end] > "\uffff" else 1
        if taken + units > size:
            break
        taken += units
        end += 1
    return end, taken


def _units(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)
