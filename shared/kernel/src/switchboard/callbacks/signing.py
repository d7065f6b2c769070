"""Signatures and the headers of one try of one callback (conversation-api 10.1).

Two signatures stand side by side, over the same bytes: the contract's, by the newest secret, and that of Standard
Webhooks, by every secret that is valid during a rotation. A receiver checks whichever it knows.

The key of both is the secret in UTF-8. One rule is added for Standard Webhooks: of a secret that is written
`whsec_<base64>`, its key is the decoded part, as that standard's libraries read it.
"""

import hashlib
import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from secrets import token_hex
from typing import Final

from msgspec import Struct

from switchboard.callbacks.compact import timestamp
from switchboard.ids import CallbackId
from switchboard.trigger import Trigger

ALGORITHM: Final = "HmacSHA256"
_PREFIX: Final = "whsec_"
_NONCE_BYTES: Final = 16
_NONCES_DRAWN: Final = 256


class Try(Struct, frozen=True):
    """One try of one callback: what its headers tell besides the signature."""

    callback_id: CallbackId
    trigger: Trigger
    #: Rises within a stream. The same on every try.
    sequence: int
    #: 1 for the first try.
    attempt: int
    event_at: datetime
    #: Sent again by an operator, not by the schedule.
    is_replay: bool = False


def headers(this: Try, body: bytes, secrets: Sequence[str], unix_seconds: int) -> dict[str, str]:
    """All headers of one try: what it is, and its signatures if there are secrets, the newest first.

    Time stamp and nonce are new on every try: receivers are told to refuse old and repeated ones.
    """
    told = {
        "content-type": "application/json",
        "webhook-id": this.callback_id,
        "switchboard-event-id": this.callback_id,
        "switchboard-event-time": timestamp(this.event_at),
        "switchboard-trigger": this.trigger,
        "switchboard-sequence": str(this.sequence),
        "switchboard-attempt": str(this.attempt),
    }
    if this.is_replay:
        told["switchboard-replay"] = "true"
    usable = [secret for secret in secrets if secret]
    if usable:
        nonce = _nonce()
        told["x-sinch-webhook-signature-timestamp"] = str(unix_seconds)
        told["x-sinch-webhook-signature-nonce"] = nonce
        told["x-sinch-webhook-signature-algorithm"] = ALGORITHM
        told["x-sinch-webhook-signature"] = contract_signature(usable[0], body, nonce, unix_seconds)
        told["webhook-timestamp"] = str(unix_seconds)
        told["webhook-signature"] = " ".join(
            standard_signature(secret, this.callback_id, unix_seconds, body) for secret in usable
        )
    return told


def contract_signature(secret: str, body: bytes, nonce: str, unix_seconds: int) -> str:
    """Base64 of HMAC-SHA256 over `body.nonce.timestamp`."""
    return _sign(secret.encode(), b"%b.%b.%d" % (body, nonce.encode(), unix_seconds))


def standard_signature(secret: str, callback_id: str, unix_seconds: int, body: bytes) -> str:
    """`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`."""
    return "v1," + _sign(standard_key(secret), b"%b.%d.%b" % (callback_id.encode(), unix_seconds, body))


@lru_cache(maxsize=4096)
def standard_key(secret: str) -> bytes:
    """The bytes that Standard Webhooks signs with: UTF-8, or the decoded part of `whsec_<base64>`."""
    if secret.startswith(_PREFIX):
        encoded = secret.removeprefix(_PREFIX)
        try:
            return b64decode(encoded + "=" * (-len(encoded) % 4), validate=True) or secret.encode()
        except Base64Error:
            return secret.encode()
    return secret.encode()


def _nonces() -> Iterator[str]:
    """Nonces without end. The system is asked for many at once: that costs as much as for one."""
    while True:
        drawn = token_hex(_NONCE_BYTES * _NONCES_DRAWN)
        for start in range(0, len(drawn), 2 * _NONCE_BYTES):
            yield drawn[start : start + 2 * _NONCE_BYTES]


_nonce: Final = _nonces().__next__


def _sign(key: bytes, signed: bytes) -> str:
    return b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
