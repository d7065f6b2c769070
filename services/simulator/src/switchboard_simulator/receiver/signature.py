"""Checks a callback as an app would (conversation-api 10.1), written apart from the code that signs.

Beside the contract's own signature a callback may carry the one of Standard Webhooks: if it does, both must hold.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence

from switchboard_simulator.receiver.record import Verdict

_PREFIX = "x-sinch-webhook-signature"


def check(secrets: Sequence[str], headers: Mapping[str, str], body: bytes) -> tuple[Verdict, str]:
    """The verdict on a callback and why. `headers` have lower-case names; one of the secrets has to fit."""
    if not secrets:
        return Verdict.UNCHECKED, "no secret is set for this receiver"
    signature = headers.get(_PREFIX)
    if signature is None:
        return Verdict.UNSIGNED, f"there is no {_PREFIX} header"
    why = ""
    for secret in secrets:
        why = _contract(secret, signature, headers, body) or _standard(secret, headers, body)
        if not why:
            return Verdict.VALID, ""
    return Verdict.INVALID, why


def _contract(secret: str, signature: str, headers: Mapping[str, str], body: bytes) -> str:
    algorithm = headers.get(f"{_PREFIX}-algorithm", "")
    nonce = headers.get(f"{_PREFIX}-nonce", "")
    timestamp = headers.get(f"{_PREFIX}-timestamp", "")
    if algorithm != "HmacSHA256":
        return "the algorithm header is not HmacSHA256"
    if not nonce or not timestamp.isdecimal():
        return "the nonce or the timestamp header is missing or malformed"
    expected = _hmac(secret.encode(), body + f".{nonce}.{timestamp}".encode())
    return "" if hmac.compare_digest(expected, signature.encode()) else "the signature does not match the body"


def _standard(secret: str, headers: Mapping[str, str], body: bytes) -> str:
    given = headers.get("webhook-signature")
    if given is None:
        return ""
    signed = f"{headers.get('webhook-id', '')}.{headers.get('webhook-timestamp', '')}.".encode() + body
    expected = b"v1," + _hmac(_standard_key(secret), signed)
    if any(hmac.compare_digest(expected, one.encode()) for one in given.split(" ")):
        return ""
    return "the Standard Webhooks signature does not match the body"


def _standard_key(secret: str) -> bytes:
    """`whsec_` and base64 is how Standard Webhooks writes keys; any other text is the key itself."""
    if secret.startswith("whsec_"):
        encoded = secret.removeprefix("whsec_")
        try:
            return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True) or secret.encode()
        except binascii.Error:
            pass
    return secret.encode()


def _hmac(key: bytes, data: bytes) -> bytes:
    return base64.b64encode(hmac.digest(key, data, "sha256"))
