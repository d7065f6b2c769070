"""Page tokens: where the next page begins, in URL-safe characters, good only for the query they came from."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from switchboard.validation import Violation
from switchboard_ingress.errors import BadRequest

_TAG_BYTES: Final = 12
DEFAULT_PAGE: Final = 10


def page_size(text: str, most: int) -> int:
    """How many a page holds: 10 if not said, at most `most`. Raises BadRequest for a negative number or none."""
    try:
        size = int(text or 0)
    except ValueError:
        size = -1
    if size < 0:
        raise BadRequest(Violation("page_size", "a whole number from 0 is expected"))
    return min(size or DEFAULT_PAGE, most)


class PageTokens:
    """Makes and reads page tokens."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, last: str, query: Sequence[str]) -> str:
        """The token of the page after `last`, an id."""
        return base64.urlsafe_b64encode(self._tag(last, query) + last.encode()).rstrip(b"=").decode()

    def read(self, token: str, query: Sequence[str]) -> str | None:
        """The id that the page comes after; None for the first page. Raises BadRequest for a token not from here."""
        if not token:
            return None
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            last = raw[_TAG_BYTES:].decode()
        except (binascii.Error, ValueError):
            raise _refused() from None
        if not hmac.compare_digest(raw[:_TAG_BYTES], self._tag(last, query)):
            raise _refused()
        return last

    def _tag(self, last: str, query: Sequence[str]) -> bytes:
        return hmac.digest(self._key, "\x1f".join((last, *query)).encode(), sha256)[:_TAG_BYTES]


def _refused() -> BadRequest:
    return BadRequest(Violation("page_token", "was not given for this query"))
