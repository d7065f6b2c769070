"""The bytes of a callback body (conversation-api 10.1).

Receivers on Node check the signature over `JSON.stringify(JSON.parse(body))`. So a body is written as JavaScript
would write it: no white space, nothing escaped that need not be, numbers in their shortest form, key order kept.
"""

import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

_encode: Final = msgspec.json.Encoder().encode
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
#: Outside of strings: white space of a client's raw JSON, or a number that msgspec and JavaScript may spell apart.
_SUSPECT: Final = re.compile(rb"[\s.E]|[0-9]e|-0")
#: Escapes that JavaScript does not write; they come from a client's raw JSON.
_ESCAPE: Final = re.compile(rb"\\[u/]")


def encode(body: object) -> bytes:
    """Encode a body that holds no content of clients: strings and enums only."""
    return _encode(body)


def encode_content(body: object) -> bytes:
    """Encode a body with content of clients in it, which may hold numbers and JSON as they wrote it."""
    encoded = _encode(body)
    if _ESCAPE.search(encoded) or _SUSPECT.search(_STRING.sub(b"", encoded)):
        return _encode(_as_javascript(msgspec.json.decode(encoded)))
    return encoded


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC: milliseconds, or microseconds where there are any. Raises ValueError for a naive time."""
    if moment.tzinfo is None:
        raise ValueError("an aware time is expected")
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="microseconds" if utc.microsecond % 1000 else "milliseconds") + "Z"


def _as_javascript(value: Any) -> Any:
    match value:
        case dict():
            return {key: _as_javascript(item) for key, item in value.items()}
        case list():
            return [_as_javascript(item) for item in value]
        case float():
            return msgspec.Raw(javascript_number(value).encode())
        case _:
            return value


def javascript_number(value: float) -> str:
    """Spell a finite number as JavaScript does: shortest digits, exponents from 1e21 up and 1e-7 down."""
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    # The value is 0.digits × 10^point.
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    return sign + _place(digits, point)


def _place(digits: str, point: int) -> str:
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    power = point - 1
    head = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
    return f"{head}e{'+' if power > 0 else '-'}{abs(power)}"
