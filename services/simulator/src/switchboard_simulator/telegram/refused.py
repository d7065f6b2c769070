"""What the Bot API says when it refuses (channel-providers 8)."""

from typing import Any


class Refused(Exception):
    """A call the Bot API does not carry out."""

    def __init__(
        self, code: int, description: str, *, retry_after: int | None = None, migrate_to: int | None = None
    ) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.retry_after = retry_after
        self.migrate_to = migrate_to

    def body(self) -> dict[str, Any]:
        """The answer's JSON object."""
        parameters = {
            name: value
            for name, value in (("retry_after", self.retry_after), ("migrate_to_chat_id", self.migrate_to))
            if value is not None
        }
        answer: dict[str, Any] = {"ok": False, "error_code": self.code, "description": self.description}
        return answer | ({"parameters": parameters} if parameters else {})


#: The word a description begins with.
PREFIXES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    413: "Request Entity Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    504: "Gateway Timeout",
}


def bad_request(what: str) -> Refused:
    """A 400 with its prefix."""
    return Refused(400, f"Bad Request: {what}")


def too_many(retry_after: int) -> Refused:
    """The 429, telling when to come back."""
    return Refused(429, f"Too Many Requests: retry after {retry_after}", retry_after=retry_after)
