"""What the Bot API's errors mean (channel-providers 8). Descriptions match by lower-case substring."""

from typing import Final

from msgspec import Struct

from switchboard.channel.outcome import FailedForNow, Rejected
from switchboard.reason import Reason, ReasonCode, reported


class Row(Struct, frozen=True):
    """A line of the table. The first that fits counts."""

    code: int
    #: In lower case; "" fits every description.
    words: str
    reason: ReasonCode


REJECTIONS: Final = (
    Row(403, "user is deactivated", ReasonCode.RECIPIENT_NOT_REACHABLE),
    Row(403, "bot was blocked by the user", ReasonCode.RECIPIENT_NOT_OPTED_IN),
    Row(403, "can't initiate conversation", ReasonCode.RECIPIENT_NOT_OPTED_IN),
    Row(403, "was kicked", ReasonCode.RECIPIENT_NOT_OPTED_IN),
    Row(403, "is not a member", ReasonCode.RECIPIENT_NOT_OPTED_IN),
    Row(403, "can't send messages to bots", ReasonCode.RECIPIENT_NOT_OPTED_IN),
    Row(403, "can't send to bots", ReasonCode.RECIPIENT_NOT_OPTED_IN),
    Row(403, "", ReasonCode.NO_PERMISSION),
    Row(400, "chat not found", ReasonCode.RECIPIENT_INVALID_CHANNEL_IDENTITY),  # also "private chat not found"
    Row(400, "peer_id_invalid", ReasonCode.RECIPIENT_INVALID_CHANNEL_IDENTITY),
    Row(400, "failed to get http url content", ReasonCode.MEDIA_NOT_REACHABLE),
    Row(400, "wrong http url specified", ReasonCode.MEDIA_NOT_REACHABLE),
    Row(400, "wrong type of the web page content", ReasonCode.MEDIA_TYPE_UNSUPPORTED),
    Row(400, "wrong file identifier", ReasonCode.MEDIA_TYPE_UNSUPPORTED),
    Row(400, "file is too big", ReasonCode.MEDIA_TOO_LARGE),
    Row(413, "", ReasonCode.MEDIA_TOO_LARGE),
    Row(400, "message text is empty", ReasonCode.BAD_REQUEST),
    Row(400, "message is too long", ReasonCode.BAD_REQUEST),
    Row(400, "can't parse entities", ReasonCode.BAD_REQUEST),
    Row(400, "button_data_invalid", ReasonCode.BAD_REQUEST),
    Row(400, "button_url_invalid", ReasonCode.BAD_REQUEST),
    Row(400, "reply markup is too long", ReasonCode.BAD_REQUEST),
)

#: A token that is wrong: 401, and 404 because the token is part of the path.
BAD_TOKEN: Final = frozenset({401, 404})
#: How long to wait when a throttled answer does not say, in seconds.
THROTTLED_SECONDS: Final = 1.0


def classify(code: int, description: str, retry_after: float | None) -> Rejected | FailedForNow:
    """What an error of the Bot API means for the attempt."""
    if code == 429:
        seconds = THROTTLED_SECONDS if retry_after is None else retry_after
        return FailedForNow(
            _reason(ReasonCode.RATE_LIMITED, code, description), retry_after_seconds=seconds, throttled=True
        )
    if code >= 500:
        return FailedForNow(_reason(ReasonCode.CHANNEL_FAILURE, code, description))
    if code in BAD_TOKEN:
        return Rejected(_reason(ReasonCode.CHANNEL_BAD_CONFIGURATION, code, description), misconfigured=True)
    words = description.lower()
    for row in REJECTIONS:
        if row.code == code and row.words in words:
            return Rejected(_reason(row.reason, code, description))
    return Rejected(_reason(ReasonCode.CHANNEL_REJECT, code, description))


def _reason(reason: ReasonCode, code: int, description: str) -> Reason:
    return reported(reason, f"{code} {description}".rstrip())
