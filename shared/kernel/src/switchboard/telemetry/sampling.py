"""Which messages are traced. Pure."""

import zlib
from datetime import timedelta
from typing import Final

from switchboard.ids import MessageId
from switchboard.rules.progress import Decision, Phase
from switchboard.status import Status

#: From acceptance to the end: longer is slow, and worth a look.
SLOW: Final = timedelta(seconds=30)
_RANGE: Final = 2**32


def is_sampled(message_id: MessageId, ratio: float) -> bool:
    """Tell whether a message is one of the share that is always traced: the same answer in every process."""
    # A checksum, because ULIDs made in one millisecond differ in their last digits only by counting.
    return zlib.crc32(message_id.encode()) < ratio * _RANGE


def is_remarkable(decision: Decision) -> bool:
    """Tell whether what was decided makes a message worth a trace of its own: it failed, switched or is in doubt."""
    progress = decision.progress
    if progress.phase is Phase.UNKNOWN or progress.ledger.delivered_twice:
        return True
    if any(due.status in (Status.FAILED, Status.SWITCHING_CHANNEL) for due in decision.effects.callbacks):
        return True
    finished = progress.final_at
    return finished is not None and bool(decision.effects) and finished - progress.status_at > SLOW
