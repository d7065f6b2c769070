"""Where a message to a contact is, and the form of what is decided about it: data, no decisions.

What follows a fact is decided in `facts`, what follows a deadline in `deadlines`; both decide among `moves`.
"""

from datetime import datetime
from enum import StrEnum
from typing import Final, assert_never

from msgspec import Struct, field
from msgspec.structs import replace

from switchboard.reason import Reason, ReasonCode
from switchboard.status import POSITIVE, Status
from switchboard.trigger import Trigger

DEFAULT_TTL_SECONDS: Final = 72 * 3600
#: What a message fails with that a fault of ours ended.
INTERNAL_ERROR: Final = Reason(ReasonCode.INTERNAL_ERROR, "The message could not be processed.")
#: What the messages of an app end with that was deleted.
APP_GONE: Final = Reason(ReasonCode.UNKNOWN_APP, "The app does not exist any more.")


class Phase(StrEnum):
    """What a message is waiting for."""

    #: An attempt is planned: in a lane, or on its way to an adapter.
    SENDING = "SENDING"
    #: An adapter has the attempt; only its outcome or its deadline moves the message.
    CLAIMED = "CLAIMED"
    #: For the time of the next try on the same channel.
    RETRYING = "RETRYING"
    #: A channel has it: for receipts, the step's timer or the horizon.
    SUBMITTED = "SUBMITTED"
    #: Nobody knows whether a channel has it: for a receipt or the end of the wait.
    UNKNOWN = "UNKNOWN"
    FINAL = "FINAL"


class OnUnknown(StrEnum):
    """What to do when an unknown outcome stays unknown."""

    FAIL = "FAIL"
    FAIL_OVER = "FAIL_OVER"


class Policy(Struct, frozen=True, omit_defaults=True):
    """What the app and the request decide about a message's progress, fixed when it is planned."""

    #: `message_retry_settings.retry_duration`.
    retry_seconds: int = 3600
    on_unknown: OnUnknown = OnUnknown.FAIL


class StepLedger(Struct, frozen=True, omit_defaults=True):
    """What one channel of the route reported."""

    status: Status = Status.QUEUED
    #: Parts the attempt came to; 0 until its outcome is known.
    parts: int = 0
    #: What is known of each part, by its provider id.
    part_status: dict[str, Status] = field(default_factory=dict)
    #: The ids of what can be taken back. Empty where the channel cannot.
    provider_ids: tuple[str, ...] = ()
    #: Facts of the channel for `message_metadata`.
    channel_metadata: dict[str, str] = field(default_factory=dict)
    #: The SUBMIT and QUEUED_ON_CHANNEL of this channel were raised.
    submitted: bool = False
    #: Why a part failed, and when the latest part's news happened, until all parts are told as one.
    reason: Reason | None = None
    event_at: datetime | None = None
    #: An attempt that nobody knows the end of is tried again, for the provider drops duplicates; and `on_unknown` is
    #: FAIL, so no other channel may be tried before this one said something.
    in_doubt: bool = False


class Ledger(Struct, frozen=True, omit_defaults=True):
    """What was reported and raised so far."""

    steps: dict[int, StepLedger] = field(default_factory=dict)
    #: Callbacks raised so far: the last sequence number.
    raised: int = 0
    #: More than one channel reported DELIVERED or READ.
    delivered_twice: bool = False

    def of(self, step: int) -> StepLedger:
        return self.steps.get(step, _NOTHING_REPORTED)


_NOTHING_REPORTED: Final = StepLedger()


class Progress(Struct, frozen=True, omit_defaults=True):
    """Where a message is. The mutable columns of its row."""

    phase: Phase
    status: Status
    status_at: datetime
    step: int = 0
    submission: int = 0
    tries: int = 0
    reason: Reason | None = None
    first_failed_at: datetime | None = None
    expires_at: datetime | None = None
    ttl_ends_at: datetime | None = None
    step_due_at: datetime | None = None
    retry_at: datetime | None = None
    claim_due_at: datetime | None = None
    horizon_at: datetime | None = None
    final_at: datetime | None = None
    ledger: Ledger = Ledger()

    @property
    def is_final(self) -> bool:
        return self.phase is Phase.FINAL

    @property
    def next_due(self) -> datetime | None:
        """The least deadline that applies in this phase. None only when final."""
        match self.phase:
            case Phase.SENDING:
                deadlines = (self.claim_due_at, self.expires_at)
            case Phase.CLAIMED:
                deadlines = (self.claim_due_at, None)
            case Phase.RETRYING:
                deadlines = (self.retry_at, self.expires_at)
            case Phase.SUBMITTED:
                deadlines = (self.step_due_at, self.horizon_at)
            case Phase.UNKNOWN:
                deadlines = (self.step_due_at, None)
            case Phase.FINAL:
                return None
            case _:
                assert_never(self.phase)
        return min(deadline for deadline in deadlines if deadline is not None)

    def delivered_elsewhere(self, step: int) -> bool:
        """Whether a channel other than that of `step` reported DELIVERED or READ."""
        return any(other != step and ledger.status in POSITIVE for other, ledger in self.ledger.steps.items())

    def with_step(self, step: int, ledger: StepLedger) -> "Progress":
        return replace(self, ledger=replace(self.ledger, steps={**self.ledger.steps, step: ledger}))

    def with_status(self, step: int, status: Status) -> "Progress":
        return self.with_step(step, replace(self.ledger.of(step), status=status))


class CallbackDue(Struct, frozen=True, omit_defaults=True):
    """A callback to raise: what it tells, and of which attempt."""

    trigger: Trigger
    sequence: int
    step: int
    submission: int
    event_at: datetime
    #: Absent for MESSAGE_SUBMIT.
    status: Status | None = None
    reason: Reason | None = None
    channel_metadata: dict[str, str] = field(default_factory=dict)


class AttemptEnd(StrEnum):
    """How the end of an attempt counts for the gates of its lanes (DESIGN 6)."""

    OK = "ok"
    FAILED = "failed"
    #: Says nothing about the channel: cancelled, throttled, the recipient's fault.
    NEUTRAL = "neutral"


class Effects(Struct, frozen=True, omit_defaults=True):
    """What to carry out, in this order: the attempt's end, callbacks, then dispatches."""

    #: The attempt (step, submission) is over and leaves its lanes.
    ended: tuple[int, int, AttemptEnd] | None = None
    #: The attempt (step, submission) is taken back if no adapter has claimed it.
    cancel: tuple[int, int] | None = None
    callbacks: tuple[CallbackDue, ...] = ()
    #: A new attempt (step, submission) is planned.
    dispatch: tuple[int, int] | None = None
    #: The planned attempt (step, submission) is published once more.
    redispatch: tuple[int, int] | None = None
    #: What the attempt (step, submission) came to is taken back by its channel.
    retract: tuple[int, int] | None = None

    def __bool__(self) -> bool:
        return self != _NO_EFFECTS


_NO_EFFECTS: Final = Effects()


class Decision(Struct, frozen=True):
    """The new progress, what to carry out, and what the timeline should say of it."""

    progress: Progress
    effects: Effects = _NO_EFFECTS
    #: One word for the timeline: what was decided.
    note: str = ""


def in_turn(first: Decision, then: Decision) -> Decision:
    """Two decisions taken one after the other in one transaction, as one: a record must have one set of effects."""
    a, b = first.effects, then.effects
    effects = Effects(
        ended=a.ended or b.ended,
        cancel=a.cancel or b.cancel,
        callbacks=a.callbacks + b.callbacks,
        dispatch=b.dispatch or a.dispatch,
        redispatch=b.redispatch or a.redispatch,
        retract=b.retract or a.retract,
    )
    return Decision(then.progress, effects, f"{first.note}; {then.note}")


class AttemptView(Struct, frozen=True):
    """What a due-time handler sees of the current attempt's row."""

    state: str
    claimed_at: datetime | None = None
    #: None: it waits in a lane.
    send_before: datetime | None = None
    republished: bool = False
