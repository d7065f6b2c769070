"""How a webhook receiver treats what it is sent."""

from enum import StrEnum

from msgspec import Struct, structs


class Mode(StrEnum):
    """What the receiver does."""

    #: Answer with `status`, after `delay_seconds`.
    ANSWER = "answer"
    #: Never answer.
    HANG = "hang"
    #: Answer one byte each `delay_seconds`.
    DRIP = "drip"
    #: Reset the connection.
    CUT = "cut"
    #: Point elsewhere: `location`, with `status` (302 unless it is a 3xx already).
    REDIRECT = "redirect"
    #: Answer `size_bytes` of nonsense with `status`.
    FLOOD = "flood"
    #: `good` requests get 200, then `bad` ones get `status` (503 unless it is an error), and so on.
    FLAP = "flap"


class Behaviour(Struct, frozen=True, kw_only=True):
    """One way to treat requests."""

    mode: Mode = Mode.ANSWER
    status: int = 200
    delay_seconds: float = 0.0
    #: The body of the answer.
    body: str = ""
    #: The `Retry-After` header of the answer.
    retry_after: str | None = None
    #: FLAP: how many requests in a row are answered well, and badly.
    good: int = 1
    bad: int = 1
    #: REDIRECT: where to.
    location: str = "/receiver/elsewhere"
    #: FLOOD: how large the answer is.
    size_bytes: int = 10_000_000
    #: Only requests whose body holds this text are treated so; the others get 200.
    match: str = ""
    #: After so many requests the receiver answers 200 again; None: until it is told otherwise.
    count: int | None = None

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599:
            raise ValueError("status is expected from 200 to 599")
        if not 0 <= self.delay_seconds <= 3600:
            raise ValueError("delay_seconds is expected from 0 to 3600")
        if not 0 <= self.size_bytes <= 1_000_000_000:
            raise ValueError("size_bytes is expected from 0 to 1000000000")
        if self.good < 0 or self.bad < 0 or self.good + self.bad == 0:
            raise ValueError("good and bad are expected from 0 on, not both 0")

    def meets(self, body: bytes) -> bool:
        """Tell whether a request is treated this way."""
        return self.count != 0 and self.match.encode() in body

    def used(self) -> "Behaviour":
        """The same with one use less left."""
        return self if self.count is None else structs.replace(self, count=self.count - 1)

    def answered_status(self, use: int) -> int | None:
        """The status that the request with index `use` (from 0) is answered with; None: no whole answer."""
        match self.mode:
            case Mode.HANG | Mode.CUT | Mode.DRIP:
                return None
            case Mode.REDIRECT:
                return self.status if 300 <= self.status < 400 else 302
            case Mode.FLAP:
                if use % (self.good + self.bad) < self.good:
                    return 200
                return self.status if self.status >= 400 else 503
            case Mode.ANSWER | Mode.FLOOD:
                return self.status
