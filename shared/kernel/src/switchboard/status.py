"""Statuses of a message, and which of them may follow which (DESIGN 2.7, conversation-api 11.1)."""

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """Where a message is, in the API's spelling. EXPIRED is told as FAILED with its reason."""

    QUEUED = "QUEUED"
    QUEUED_ON_CHANNEL = "QUEUED_ON_CHANNEL"
    DELIVERED = "DELIVERED"
    READ = "READ"
    SWITCHING_CHANNEL = "SWITCHING_CHANNEL"
    FAILED = "FAILED"
    #: Only of messages from a contact.
    RECEIVED = "RECEIVED"


#: How far a message came on one channel. FAILED and SWITCHING_CHANNEL end a channel; they have no rank.
RANK: Final = {Status.QUEUED: 0, Status.QUEUED_ON_CHANNEL: 1, Status.DELIVERED: 2, Status.READ: 3}

#: What a channel can say after it took a message.
POSITIVE: Final = frozenset({Status.DELIVERED, Status.READ})


def raises(before: Status, after: Status) -> bool:
    """Tell whether `after` is news on a channel that already reported `before`.

    Ranks only rise. The one exception of DESIGN 2.7: a real DELIVERED or READ outranks FAILED.
    """
    if before is Status.FAILED:
        return after in POSITIVE
    if before is Status.SWITCHING_CHANNEL:
        return after in POSITIVE
    if after is Status.FAILED:
        return before not in POSITIVE
    return RANK[after] > RANK[before]
