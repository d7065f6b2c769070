"""Secrets: how they are kept at rest, and how an access key's secret is checked.

SecretError
├── UnknownKey    sealed with a key this process was not given
└── Unreadable    not sealed by us, damaged, or moved here from another row
"""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
#: Shortest access secret that is taken: 26 letters and digits of base 32 are 130 bits.
MIN_ACCESS_SECRET_LENGTH: Final = 22


class SecretError(Exception):
    """A secret cannot be read. Texts name keys and rows, never what they hold."""


class UnknownKey(SecretError):
    """Sealed with a key this process was not given."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"sealed with key {key_id!r}, which SWITCHBOARD_SECRET_KEYS does not have")


class Unreadable(SecretError):
    """Not sealed by us, damaged, or moved here from another row."""


class KeyRing:
    """The keys for secrets at rest. The first seals, all of them open: that is how a key is changed.

    Sealed bytes are version, length of the key id, key id, nonce, AES-256-GCM ciphertext and tag. The key id and the
    row's identity are associated data, so that a sealed value copied to another row does not open there.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys` are 32 bytes each, newest first. Raises ValueError that names the key."""
        if not keys:
            raise ValueError("at least one key is expected")
        for key_id, key in keys.items():
            if not 1 <= len(key_id.encode()) <= 255:
                raise ValueError(f"key id {key_id!r}: 1 to 255 bytes are expected")
            if len(key) != _KEY_BYTES:
                raise ValueError(f"key {key_id!r}: {_KEY_BYTES} bytes are expected, not {len(key)}")
        self._keys = dict(keys)
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._newest = next(iter(keys))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `id:base64, id:base64 …`, newest first. Raises ValueError, without the keys in its text."""
        keys: dict[str, bytes] = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            key_id, colon, encoded = entry.partition(":")
            if not colon:
                raise ValueError("`id:base64 of 32 bytes` is expected, comma-separated")
            try:
                key = base64.b64decode(encoded, validate=True)
            except binascii.Error:
                raise ValueError(f"key {key_id!r}: not base64") from None
            if key_id in keys:
                raise ValueError(f"key {key_id!r}: given twice")
            keys[key_id] = key
        return cls(keys)

    @classmethod
    def generate(cls) -> str:
        """A new key for a new installation, as `parse` reads it."""
        return f"k1:{base64.b64encode(os.urandom(_KEY_BYTES)).decode()}"

    def seal(self, plain: bytes, row: str) -> bytes:
        """Encrypt for one row, named like `apps:01K…`."""
        key_id = self._newest.encode()
        head = _VERSION + bytes((len(key_id),)) + key_id
        nonce = os.urandom(_NONCE_BYTES)
        return head + nonce + self._ciphers[self._newest].encrypt(nonce, plain, head + row.encode())

    def open(self, sealed: bytes, row: str) -> bytes:
        """Decrypt what was sealed for this row. Raises UnknownKey or Unreadable."""
        head_length = 2 + sealed[1] if len(sealed) > 1 else 0
        if sealed[:1] != _VERSION or len(sealed) < head_length + _NONCE_BYTES:
            raise Unreadable(f"{row}: not a sealed secret")
        head, nonce = sealed[:head_length], sealed[head_length : head_length + _NONCE_BYTES]
        key_id = head[2:].decode(errors="replace")
        if key_id not in self._ciphers:
            raise UnknownKey(key_id)
        try:
            return self._ciphers[key_id].decrypt(nonce, sealed[head_length + _NONCE_BYTES :], head + row.encode())
        except InvalidTag:
            raise Unreadable(f"{row}: damaged, or sealed for another row") from None

    def derive(self, purpose: str) -> bytes:
        """A key of 32 bytes for one other purpose, from the newest key: record keys."""
        return _derived(self._keys[self._newest], purpose)

    def derive_all(self, purpose: str) -> dict[str, bytes]:
        """The same from every key, by key id, newest first: what was signed before a change still verifies."""
        return {key_id: _derived(key, purpose) for key_id, key in self._keys.items()}

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)})"


def hash_access_secret(key_id: str, secret: str) -> bytes:
    """What is kept of an access key's secret.

    A fast hash, salted with the key's id, is right here: slow ones protect what people choose, and these secrets are
    random with 128 bits or more, beyond guessing at any speed, while Basic authentication checks one per request.
    """
    return hashlib.blake2b(secret.encode(), key=key_id.encode()[:64], digest_size=32, person=b"access-secret").digest()


def is_access_secret(key_id: str, secret: str, expected: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(hash_access_secret(key_id, secret), expected)


def _derived(key: bytes, purpose: str) -> bytes:
    return hmac.digest(key, b"switchboard:" + purpose.encode(), hashlib.sha256)
