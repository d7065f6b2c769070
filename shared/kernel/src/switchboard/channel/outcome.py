"""What an attempt came to: a closed set. Callers match on it; nobody looks at a provider's status code again."""

from msgspec import Struct

from switchboard.reason import Reason


class Accepted(Struct, frozen=True, tag="accepted"):
    """The provider took the message. Receipts will carry these ids, one for each part, in part order."""

    provider_ids: tuple[str, ...]


class PartlyAccepted(Struct, frozen=True, tag="partly_accepted"):
    """Some parts were taken, the rest refused for good. Never fails over: the person has half of it."""

    provider_ids: tuple[str, ...]
    reason: Reason


class Rejected(Struct, frozen=True, tag="rejected"):
    """The provider refused, and would refuse again. Fail over, unless the failure belongs to the message."""

    reason: Reason
    #: The message itself is wrong (app deleted, template missing): no other channel is tried.
    fails_message: bool = False
    #: Our credentials or sender are wrong: an alarm for the operator, counted against the account's gate.
    misconfigured: bool = False


class FailedForNow(Struct, frozen=True, tag="failed_for_now"):
    """Nothing was taken. Trying the same channel again is safe. Throttling is not counted as a try."""

    reason: Reason
    retry_after_seconds: float | None = None
    throttled: bool = False
    #: Providers' tables bound some codes to a few tries ("once", "cap 5"); None leaves it to retry_duration.
    max_tries: int | None = None


class Unknown(Struct, frozen=True, tag="unknown"):
    """We cannot tell whether it was taken: a timeout after the body was sent. Never retried blindly."""

    reason: Reason
    #: Ids of the parts that were taken for certain before the doubt began, then names under which receipts of the
    #: part in doubt may come.
    provider_ids: tuple[str, ...] = ()
    #: How many parts the message has, submitted or not. 0: not known.
    parts: int = 0


Outcome = Accepted | PartlyAccepted | Rejected | FailedForNow | Unknown
