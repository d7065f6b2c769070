"""What the API answers when it refuses, made in one place (conversation-api 1.4).

ApiError
├── BadRequest         400: the request says something that cannot be
├── Unauthenticated    401: no credentials, wrong ones, or an expired token
├── Forbidden          403: credentials of another project
├── NotFound           404: no such thing in this project
├── ContentGone        410: a callback cannot be sent again, as its content is not kept any more
├── AlreadyExists      409: the Idempotency-Key belongs to another request
├── TooLarge           413: the body is over the limit
├── TooManyRequests    429: a rate or a waiting line is full
├── NotImplementedHere 501: a known path with another method, or an operation that is not built
└── Unavailable        503: the broker or the database does not answer
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from switchboard.validation import Violation

_encode: Final = msgspec.json.Encoder().encode
JSON: Final = (b"content-type", b"application/json")


class Answer(Struct, frozen=True):
    """What goes back to the client."""

    body: bytes = b"{}"
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,)


def success(value: Any = None) -> Answer:
    """200 with a JSON body; `{}` where there is nothing to say."""
    return Answer() if value is None else Answer(_encode(value))


class ApiError(Exception):
    """A refusal. It knows its own status."""

    status = 500
    name = "INTERNAL"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def details(self) -> list[dict[str, Any]]:
        return []

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        return (JSON,)

    def answer(self) -> Answer:
        """The error body of the contract."""
        error = {"code": self.status, "message": self.message, "status": self.name, "details": self.details}
        return Answer(_encode({"error": error}), self.status, self.headers)


class Internal(ApiError):
    """A bug of ours. The log has the details, the client has not."""

    def __init__(self) -> None:
        super().__init__("An internal error occurred.")


class BadRequest(ApiError):
    status = 400
    name = "INVALID_ARGUMENT"

    def __init__(self, *violations: Violation) -> None:
        """At least one violation; the first makes the message."""
        first = violations[0]
        super().__init__(f"{first.field}: {first.description}" if first.field else first.description)
        self.violations: Sequence[Violation] = violations

    @property
    def details(self) -> list[dict[str, Any]]:
        return [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": self.violations}]


class Unauthenticated(ApiError):
    status = 401
    name = "UNAUTHENTICATED"

    def __init__(self, challenge: str) -> None:
        """`challenge` goes into WWW-Authenticate; clients look there for the word "expired" (conversation-api 1.3)."""
        super().__init__("Request had invalid credentials.")
        self._challenge = challenge

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        return (JSON, (b"www-authenticate", self._challenge.encode()))


class Forbidden(ApiError):
    status = 403
    name = "PERMISSION_DENIED"


class NotFound(ApiError):
    status = 404
    name = "NOT_FOUND"


class AlreadyExists(ApiError):
    status = 409
    name = "ALREADY_EXISTS"


class ContentGone(ApiError):
    status = 410
    name = "FAILED_PRECONDITION"


class TooLarge(ApiError):
    status = 413
    name = "INVALID_ARGUMENT"


class NotImplementedHere(ApiError):
    status = 501
    name = "UNIMPLEMENTED"


class Later(ApiError):
    """Refused now; the same request may succeed after `retry_after_seconds`."""

    def __init__(self, message: str, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self._seconds = retry_after_seconds

    @property
    def details(self) -> list[dict[str, Any]]:
        return [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{self._seconds}s"}]

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        return (JSON, (b"retry-after", str(self._seconds).encode()))


class TooManyRequests(Later):
    status = 429
    name = "RESOURCE_EXHAUSTED"


class Unavailable(Later):
    status = 503
    name = "UNAVAILABLE"
