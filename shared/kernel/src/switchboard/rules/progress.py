"""What follows every fact about a message to a contact: wait, retry here, switch the channel, or end.

`start` makes the progress of a new message; `on_outcome`, `on_receipt`, `on_abandoned`, `on_resolved` and `on_due`
take it from there. Each returns a `Decision`: the new progress and the effects to carry out, as data. Applying the
same fact twice changes nothing the second time: what was raised before is not raised again.

Published as a truth table in docs/reference/failover.md. Sources: DESIGN 2, 5; conversation-api 11.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never

from msgspec import Struct, field
from msgspec.structs import replace

from switchboard.channel.outcome import Accepted, FailedForNow, Outcome, PartlyAccepted, Rejected, Unknown
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.route import Route, RouteStep
from switchboard.status import POSITIVE, Status, raises
from switchboard.trigger import Trigger

#: How long a published attempt may stay unclaimed (DESIGN 5).
CLAIM_SECONDS: Final = 30
#: After a claimed attempt's send deadline, how long its outcome may still be on the way.
OUTCOME_GRACE_SECONDS: Final = 30
#: How long an unknown outcome waits for a receipt where its step has no timer of its own.
UNKNOWN_WAIT_SECONDS: Final = 300
DEFAULT_TTL_SECONDS: Final = 72 * 3600
FIRST_BACKOFF_SECONDS: Final = 0.5
LONGEST_BACKOFF_SECONDS: Final = 300.0
#: How long a throttled attempt waits if the provider does not say.
THROTTLED_SECONDS: Final = 1.0


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
_NO_CALLBACKS: Final[tuple[CallbackDue, ...]] = ()


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


def start(route: Route, accepted_at: datetime, ttl_seconds: int | None, now: datetime) -> Decision:
    """Begin: plan the first attempt, or end at once where there is nothing to try or no time left."""
    ttl_ends_at = None if ttl_seconds is None else _after(accepted_at, ttl_seconds)
    begun = Progress(
        Phase.SENDING,
        Status.QUEUED,
        accepted_at,
        expires_at=ttl_ends_at or _after(accepted_at, DEFAULT_TTL_SECONDS),
        ttl_ends_at=ttl_ends_at,
    )
    if not route.steps:
        assert route.empty_because is not None
        return _fail(begun, route.empty_because, now, "no channel")
    if begun.expires_at is not None and begun.expires_at <= now:
        return _fail(begun, _EXPIRED, now, "expired before it was planned")
    return _dispatch(begun, now, "planned")


def on_outcome(
    progress: Progress,
    route: Route,
    policy: Policy,
    step: int,
    submission: int,
    outcome: Outcome,
    now: datetime,
    finished_at: datetime | None = None,
) -> Decision:
    """An attempt has its outcome. One that is not the current attempt's any more is only recorded.

    `finished_at` is when it was recorded, if that was before `now`: the time the app is told it happened.
    """
    if (step, submission) != (progress.step, progress.submission):
        return Decision(progress, note="outcome of an earlier attempt")
    if progress.phase not in _AWAITS_OUTCOME:
        # A receipt overtook it: now it is known how many parts there are.
        merged = _merge_ids(progress, route, step, outcome)
        decision = _tell_combined(merged, route, step, submission, now, "late outcome")
        return replace(decision, effects=replace(decision.effects, ended=(step, submission, _end_of(outcome))))
    if progress.ledger.of(step).in_doubt and not isinstance(outcome, FailedForNow | Unknown):
        # A provider that drops duplicates would have known the attempt before: what it says is said of both.
        progress = _with_step(progress, step, replace(progress.ledger.of(step), in_doubt=False))
    match outcome:
        case Accepted():
            decision = _accept(_merge_ids(progress, route, step, outcome), route, now, finished_at or now)
        case PartlyAccepted(reason=reason):
            decision = _fail(_merge_ids(progress, route, step, outcome), reason, now, "partly accepted")
        case Rejected(reason=reason, fails_message=True):
            decision = _fail(progress, reason, now, "rejected, the message itself")
        case Rejected(reason=reason):
            decision = _switch(progress, route, reason, now, "rejected")
        case FailedForNow():
            decision = _retry(progress, route, policy, outcome, now)
        case Unknown():
            decision = _doubt(_merge_ids(progress, route, step, outcome), route, policy, outcome.reason, now)
        case _:
            assert_never(outcome)
    effects = replace(decision.effects, ended=(step, submission, _end_of(outcome)))
    return replace(decision, effects=effects)


def on_receipt(
    progress: Progress,
    route: Route,
    step: int,
    submission: int,
    provider_id: str,
    status: Status,
    reason: Reason | None,
    event_at: datetime,
    channel_metadata: Mapping[str, str],
    now: datetime,
) -> Decision:
    """The provider told more about one part. Statuses only rise; what is no news is only recorded."""
    before = progress.ledger.of(step)
    known = before.part_status.get(provider_id, Status.QUEUED_ON_CHANNEL)
    if not raises(known, status) or step >= len(route.steps):
        return Decision(progress, note="no news")
    after = replace(
        before,
        part_status={**before.part_status, provider_id: status},
        channel_metadata={**before.channel_metadata, **channel_metadata},
        reason=before.reason or reason,
        event_at=event_at,
        in_doubt=False,
    )
    if progress.phase is Phase.UNKNOWN and not after.parts:
        after = replace(after, parts=1)
    progress = _with_step(progress, step, after)
    if (step, submission) != (progress.step, progress.submission) or progress.phase not in _AWAITS_OUTCOME:
        return _tell_combined(progress, route, step, submission, now, "receipt of a part")
    if progress.phase is Phase.UNKNOWN and _combined(after) is None:
        # The rest of it stays in doubt, or was never submitted.
        return Decision(progress, note="receipt of a part")
    # The receipt was faster than its outcome: the channel has the message, so say that first.
    progress, first = _raise_submitted(progress, event_at)
    progress = _await_receipts(progress, route.steps[step], route, now)
    decision = _tell_combined(progress, route, step, submission, now, "receipt before its outcome")
    effects = replace(
        decision.effects,
        ended=(step, submission, AttemptEnd.OK),
        callbacks=first + decision.effects.callbacks,
    )
    return replace(decision, effects=effects)


def on_abandoned(
    progress: Progress,
    route: Route,
    attempt: AttemptView | None,
    step: int,
    submission: int,
    reason: Reason,
    fails_message: bool,
    now: datetime,
) -> Decision:
    """Take back a planned attempt that will not be submitted: switch, or end. One that was claimed goes its way."""
    is_current = (step, submission) == (
        progress.step,
        progress.submission,
    ) and progress.phase is Phase.SENDING
    if not is_current or attempt is None or attempt.state != "planned":
        return Decision(progress, note="abandoned too late")
    if fails_message:
        decision = _fail(progress, reason, now, "purged")
    else:
        decision = _switch(progress, route, reason, now, "abandoned")
    effects = replace(decision.effects, ended=(step, submission, AttemptEnd.NEUTRAL), cancel=(step, submission))
    return replace(decision, effects=effects)


def on_app_gone(decision: Decision, now: datetime) -> Decision:
    """The app was deleted: what was decided to be tried next is not tried, and the message ends."""
    if decision.effects.dispatch is None:
        return decision
    over = _fail(decision.progress, APP_GONE, now, f"{decision.note}; the app is gone")
    callbacks = decision.effects.callbacks + over.effects.callbacks
    return replace(over, effects=replace(decision.effects, dispatch=None, callbacks=callbacks))


def on_resolved(
    progress: Progress,
    route: Route,
    step: int,
    submission: int,
    status: Status,
    reason: Reason | None,
    now: datetime,
) -> Decision:
    """An operator found out what became of an unknown attempt. Counts as a receipt for all its parts.

    That an attempt failed is said of the latest one only: an earlier one's end is no word about what followed it.
    """
    if status is Status.FAILED and (step, submission) != (progress.step, progress.submission):
        return Decision(progress, note="another attempt is under way")
    return on_receipt(progress, route, step, submission, "operator", status, reason, now, {}, now)


def on_due(progress: Progress, route: Route, policy: Policy, attempt: AttemptView | None, now: datetime) -> Decision:
    """Act on the deadlines that really passed. The attempt's recorded outcome was applied before."""
    match progress.phase:
        case Phase.SENDING | Phase.CLAIMED if attempt is not None and attempt.state == "claimed":
            return _claimed_due(progress, route, policy, attempt, now)
        case Phase.SENDING | Phase.CLAIMED:
            return _planned_due(progress, route, policy, attempt, now)
        case Phase.RETRYING if _passed(progress.expires_at, now):
            return _fail(progress, _EXPIRED, now, "expired")
        case Phase.RETRYING if _passed(progress.retry_at, now):
            return _dispatch(progress, now, "retry")
        case Phase.SUBMITTED if _passed(progress.horizon_at, now):
            return Decision(_final(progress, now), note="receipt horizon passed")
        case Phase.SUBMITTED if _passed(progress.step_due_at, now):
            if _passed(progress.ttl_ends_at, now):
                return _past_ttl(progress)
            return _switch(progress, route, _NO_REPORT, now, "no report in time")
        case Phase.UNKNOWN if _passed(progress.step_due_at, now):
            return _give_up_on_unknown(progress, route, policy, progress.reason or _DOUBT, now)
        case _:
            return Decision(progress, note="not due")


def on_dead_letter(progress: Progress, now: datetime) -> Decision:
    """A record about the message cannot be handled and never will be: the message ends, and the app is told."""
    if progress.is_final:
        return Decision(progress, note="dead letter of a finished message")
    decision = _fail(progress, INTERNAL_ERROR, now, "dead letter")
    current = (progress.step, progress.submission)
    is_out = progress.phase in (Phase.SENDING, Phase.CLAIMED)
    effects = replace(
        decision.effects,
        cancel=current if progress.phase is Phase.SENDING else None,
        ended=(*current, AttemptEnd.NEUTRAL) if is_out else None,
    )
    return replace(decision, effects=effects)


def claimed(progress: Progress, claimed_at: datetime, step: RouteStep) -> Progress:
    """The router saw that an adapter has the attempt: only its outcome or its deadline counts now."""
    return replace(
        progress,
        phase=Phase.CLAIMED,
        claim_due_at=_after(claimed_at, step.send_timeout_seconds + OUTCOME_GRACE_SECONDS),
    )


def backoff_seconds(tries: int, attempt_name: str) -> float:
    """How long the try after `tries` waits: exponential with full jitter, the same for the same attempt every time."""
    most = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0**tries)
    share = int.from_bytes(hashlib.blake2b(attempt_name.encode(), digest_size=4).digest(), "big") / 2**32
    return float(most * share)


#: What a message fails with that a fault of ours ended.
INTERNAL_ERROR: Final = Reason(ReasonCode.INTERNAL_ERROR, "The message could not be processed.")
#: What the messages of an app end with that was deleted.
APP_GONE: Final = Reason(ReasonCode.UNKNOWN_APP, "The app does not exist any more.")
_AWAITS_OUTCOME: Final = frozenset({Phase.SENDING, Phase.CLAIMED, Phase.UNKNOWN})
_EXPIRED: Final = Reason(ReasonCode.MESSAGE_EXPIRED, "No channel took the message before its time was up.")
_NO_REPORT: Final = Reason(
    ReasonCode.DELIVERY_REPORT_TIME_OUT, "The channel did not report delivery within the waiting time."
)
_DOUBT: Final = Reason(ReasonCode.UNKNOWN, "It is not known whether the channel took the message.")
_UNSAID: Final = Reason(ReasonCode.UNKNOWN, "The channel reported a failure and did not say why.")
_UNCLAIMED: Final = FailedForNow(Reason(ReasonCode.CHANNEL_FAILURE, "No adapter took the message in time."))


def _accept(progress: Progress, route: Route, now: datetime, event_at: datetime) -> Decision:
    progress, callbacks = _raise_submitted(progress, event_at)
    progress = _await_receipts(progress, route.steps[progress.step], route, now)
    decision = _tell_combined(progress, route, progress.step, progress.submission, now, "accepted")
    return replace(decision, effects=replace(decision.effects, callbacks=callbacks + decision.effects.callbacks))


def _tell_combined(
    progress: Progress, route: Route, step: int, submission: int, now: datetime, otherwise: str
) -> Decision:
    """Tell what all parts of a step come to, if that is news; `otherwise` is the note if it is not."""
    ledger = progress.ledger.of(step)
    combined = _combined(ledger)
    if combined is None or not raises(ledger.status, combined):
        return Decision(progress, note=otherwise)
    if combined is Status.FAILED:
        return _failed_receipt(progress, route, step, ledger.reason or _UNSAID, now)
    return _delivered(progress, route, step, submission, combined, now, ledger.event_at or now)


def _await_receipts(progress: Progress, step: RouteStep, route: Route, now: datetime) -> Progress:
    """The channel has it: wait for what it reports, or end at once if it reports nothing."""
    taken = replace(progress, phase=Phase.SUBMITTED, claim_due_at=None, retry_at=None, step_due_at=None)
    if _delivered_elsewhere(progress, progress.step) or not step.receipts:
        return _final(taken, now)
    can_switch = progress.step + 1 < len(route.steps) and not _passed(progress.ttl_ends_at, now)
    switches_at = _after(now, step.wait_seconds) if can_switch and step.wait_seconds is not None else None
    retracts_at = progress.ttl_ends_at if step.can_retract else None
    return replace(
        taken,
        horizon_at=_after(now, step.horizon_seconds),
        step_due_at=min((at for at in (switches_at, retracts_at) if at is not None), default=None),
    )


def _past_ttl(progress: Progress) -> Decision:
    """The time of a message is up that a channel has: no other one is tried, and this one takes it back if it can."""
    waits = replace(progress, step_due_at=None)
    ledger = progress.ledger.of(progress.step)
    if not ledger.provider_ids or ledger.status in POSITIVE:
        return Decision(waits, note="TTL passed, no failover")
    return Decision(waits, Effects(retract=(progress.step, progress.submission)), "TTL passed, taken back")


def _retry(progress: Progress, route: Route, policy: Policy, outcome: FailedForNow, now: datetime) -> Decision:
    if _delivered_elsewhere(progress, progress.step):
        return Decision(_final(progress, now), note="delivered elsewhere, no retry")
    first_failed_at = progress.first_failed_at or now
    tries = progress.tries + (0 if outcome.throttled else 1)
    limit = _after(first_failed_at, policy.retry_seconds)
    used_up = outcome.max_tries is not None and tries >= max(2, outcome.max_tries)
    if used_up or (now >= limit and progress.first_failed_at is not None):
        return _switch(progress, route, outcome.reason, now, "retries exhausted")
    delay = outcome.retry_after_seconds
    if delay is None:
        name = f"{progress.status_at.isoformat()}.{progress.step}.{progress.submission}"
        delay = THROTTLED_SECONDS if outcome.throttled else backoff_seconds(tries, name)
    waiting = replace(
        progress,
        phase=Phase.RETRYING,
        tries=tries,
        first_failed_at=first_failed_at,
        retry_at=max(now, min(_after(now, delay), limit)),
        claim_due_at=None,
        step_due_at=None,
        reason=outcome.reason,
    )
    return Decision(waiting, note="throttled" if outcome.throttled else "failed for now")


def _doubt(progress: Progress, route: Route, policy: Policy, reason: Reason, now: datetime) -> Decision:
    step = route.steps[progress.step]
    if progress.phase is Phase.UNKNOWN:
        return Decision(progress, note="still unknown")
    if step.deduplicates:
        if policy.on_unknown is OnUnknown.FAIL:
            progress = _with_step(progress, progress.step, replace(progress.ledger.of(progress.step), in_doubt=True))
        return _retry(progress, route, policy, FailedForNow(reason), now)
    wait = (step.wait_seconds or UNKNOWN_WAIT_SECONDS) if step.receipts else 0
    doubtful = replace(
        progress,
        phase=Phase.UNKNOWN,
        reason=reason,
        claim_due_at=None,
        retry_at=None,
        step_due_at=_after(now, wait),
    )
    if wait == 0:
        return _give_up_on_unknown(doubtful, route, policy, reason, now)
    return Decision(doubtful, note="unknown")


def _give_up_on_unknown(progress: Progress, route: Route, policy: Policy, reason: Reason, now: datetime) -> Decision:
    told = Reason(ReasonCode.UNKNOWN, reason.description)
    if policy.on_unknown is OnUnknown.FAIL_OVER:
        return _switch(progress, route, told, now, "stayed unknown")
    return _fail(progress, told, now, "stayed unknown")


def _claimed_due(progress: Progress, route: Route, policy: Policy, attempt: AttemptView, now: datetime) -> Decision:
    assert attempt.claimed_at is not None
    seen = claimed(progress, attempt.claimed_at, route.steps[progress.step])
    if not _passed(seen.claim_due_at, now):
        return Decision(seen, note="claimed")
    decision = _doubt(seen, route, policy, _DOUBT, now)
    ended = (progress.step, progress.submission, AttemptEnd.FAILED)
    return replace(decision, effects=replace(decision.effects, ended=ended))


def _planned_due(
    progress: Progress, route: Route, policy: Policy, attempt: AttemptView | None, now: datetime
) -> Decision:
    current = (progress.step, progress.submission)
    if _passed(progress.expires_at, now):
        decision = _fail(progress, _EXPIRED, now, "expired")
        return replace(
            decision, effects=replace(decision.effects, cancel=current, ended=(*current, AttemptEnd.NEUTRAL))
        )
    if attempt is None or attempt.send_before is None:
        # It waits in a lane: only its expiry runs.
        return Decision(replace(progress, claim_due_at=None), note="waits in its lane")
    if not _passed(attempt.send_before, now):
        return Decision(replace(progress, claim_due_at=attempt.send_before), note="not due")
    if not attempt.republished:
        again = replace(progress, claim_due_at=send_before_at(progress, now))
        return Decision(again, Effects(redispatch=current), "not claimed in time, published once more")
    decision = _retry(progress, route, policy, _UNCLAIMED, now)
    effects = replace(decision.effects, cancel=current, ended=(*current, AttemptEnd.FAILED))
    return replace(decision, effects=effects)


def _switch(progress: Progress, route: Route, reason: Reason, now: datetime, note: str) -> Decision:
    """Leave this channel: go on with the next one, or end."""
    if _delivered_elsewhere(progress, progress.step):
        return Decision(_final(_left(progress, Status.FAILED), now), note=f"{note}; delivered elsewhere")
    if progress.ledger.of(progress.step).in_doubt:
        return _fail(progress, Reason(ReasonCode.UNKNOWN, reason.description), now, f"{note}, in doubt")
    waited_in_vain = progress.phase is not Phase.SUBMITTED and _passed(progress.expires_at, now)
    if waited_in_vain or _passed(progress.ttl_ends_at, now):
        return _fail(progress, _EXPIRED, now, f"{note}, expired")
    if progress.step + 1 >= len(route.steps):
        return _fail(progress, reason, now, f"{note}, no channel left")
    if progress.ledger.of(progress.step).status in POSITIVE:
        # Delivered and not read: the next channel is tried, but nobody is told that the message went back.
        onward, callbacks = progress, _NO_CALLBACKS
    else:
        left = _left(progress, Status.SWITCHING_CHANNEL)
        told, callbacks = _raise(left, progress.step, progress.submission, Status.SWITCHING_CHANNEL, reason, now)
        onward = replace(told, status=Status.SWITCHING_CHANNEL, status_at=now)
    onward = replace(onward, step=progress.step + 1, tries=0, first_failed_at=None, reason=None)
    decision = _dispatch(onward, now, note)
    return replace(decision, effects=replace(decision.effects, callbacks=callbacks))


def _dispatch(progress: Progress, now: datetime, note: str) -> Decision:
    submission = progress.submission + 1
    sending = replace(
        progress,
        phase=Phase.SENDING,
        submission=submission,
        claim_due_at=send_before_at(progress, now),
        retry_at=None,
        step_due_at=None,
        horizon_at=None,
        # Where a channel had it and lost it, the time a further channel has runs from acceptance of the message.
        expires_at=progress.expires_at if not _passed(progress.expires_at, now) else _after(now, DEFAULT_TTL_SECONDS),
    )
    return Decision(sending, Effects(dispatch=(progress.step, submission)), note)


def send_before_at(progress: Progress, now: datetime) -> datetime:
    """Until when an attempt that is published now may be claimed: never past the TTL."""
    latest = _after(now, CLAIM_SECONDS)
    return min(latest, progress.ttl_ends_at) if progress.ttl_ends_at is not None else latest


def _fail(progress: Progress, reason: Reason, now: datetime, note: str) -> Decision:
    if any(step.status in POSITIVE for step in progress.ledger.steps.values()):
        return Decision(_final(progress, now), note=f"{note}; delivered elsewhere")
    failed = replace(_left(progress, Status.FAILED), status=Status.FAILED, status_at=now, reason=reason)
    told, callbacks = _raise(failed, progress.step, progress.submission, Status.FAILED, reason, now)
    return Decision(_final(told, now), Effects(callbacks=callbacks), note)


def _failed_receipt(progress: Progress, route: Route, step: int, reason: Reason, now: datetime) -> Decision:
    if step != progress.step or progress.phase not in (Phase.SUBMITTED, Phase.UNKNOWN):
        return Decision(_with_status(progress, step, Status.FAILED), note="failure of a channel already left")
    parts = progress.ledger.of(step).part_status.values()
    if any(status in POSITIVE for status in parts):
        return _fail(progress, reason, now, "a part failed after another was delivered")
    return _switch(progress, route, reason, now, "failed receipt")


def _delivered(
    progress: Progress, route: Route, step: int, submission: int, status: Status, now: datetime, event_at: datetime
) -> Decision:
    """A channel delivered. Ends the message, whatever else was going on; a planned attempt elsewhere is taken back."""
    twice = _delivered_elsewhere(progress, step)
    counted = replace(
        progress, ledger=replace(progress.ledger, delivered_twice=progress.ledger.delivered_twice or twice)
    )
    told, callbacks = _raise(_with_status(counted, step, status), step, submission, status, None, event_at)
    is_better = progress.status not in POSITIVE or raises(progress.status, status)
    done = replace(told, status=status, status_at=event_at, reason=None) if is_better else told
    if status is Status.DELIVERED and _waits_to_be_read(progress, route, step):
        return Decision(done, Effects(callbacks=callbacks), "delivered, not read yet")
    cancel = None
    if progress.phase is Phase.SENDING and step != progress.step:
        cancel = (progress.step, progress.submission)
    ended = (*cancel, AttemptEnd.NEUTRAL) if cancel else None
    return Decision(
        _final(done, now), Effects(ended, cancel, callbacks), "read" if status is Status.READ else "delivered"
    )


def _waits_to_be_read(progress: Progress, route: Route, step: int) -> bool:
    is_here = step == progress.step and progress.phase is Phase.SUBMITTED
    return is_here and route.steps[step].until_read and progress.step_due_at is not None


def _raise_submitted(progress: Progress, at: datetime) -> tuple[Progress, tuple[CallbackDue, ...]]:
    """MESSAGE_SUBMIT and QUEUED_ON_CHANNEL, once per channel, unless another channel already delivered."""
    step, submission = progress.step, progress.submission
    before = progress.ledger.of(step)
    if before.submitted:
        return progress, ()
    taken = replace(before, submitted=True, status=Status.QUEUED_ON_CHANNEL)
    progress = _with_step(progress, step, taken)
    if _delivered_elsewhere(progress, step):
        return progress, ()
    first = progress.ledger.raised + 1
    submit = CallbackDue(Trigger.MESSAGE_SUBMIT, first, step, submission, at)
    queued = CallbackDue(
        Trigger.MESSAGE_DELIVERY, first + 1, step, submission, at, Status.QUEUED_ON_CHANNEL,
        channel_metadata=taken.channel_metadata,
    )  # fmt: skip
    told = replace(
        progress,
        status=Status.QUEUED_ON_CHANNEL,
        status_at=at,
        reason=None,
        ledger=replace(progress.ledger, raised=first + 1),
    )
    return told, (submit, queued)


def _raise(
    progress: Progress, step: int, submission: int, status: Status, reason: Reason | None, event_at: datetime
) -> tuple[Progress, tuple[CallbackDue, ...]]:
    sequence = progress.ledger.raised + 1
    due = CallbackDue(
        Trigger.MESSAGE_DELIVERY, sequence, step, submission, event_at, status, reason,
        progress.ledger.of(step).channel_metadata,
    )  # fmt: skip
    return replace(progress, ledger=replace(progress.ledger, raised=sequence)), (due,)


def _combined(step: StepLedger) -> Status | None:
    """One status for all parts (channel-providers 0.3): FAILED as soon as one failed, else the least of them."""
    known = list(step.part_status.values())
    if "operator" in step.part_status:
        return step.part_status["operator"]
    if step.parts and Status.FAILED in known:
        return Status.FAILED
    if not step.parts or len(known) < step.parts:
        return None
    return Status.READ if all(status is Status.READ for status in known) else Status.DELIVERED


def _merge_ids(progress: Progress, route: Route, step: int, outcome: Outcome) -> Progress:
    """Note how many parts there are, once the outcome tells. A refused part counts, so the whole is never delivered."""
    match outcome:
        case Accepted(provider_ids=ids):
            parts = len(ids)
        case PartlyAccepted(provider_ids=ids):
            parts = len(ids) + 1
        case Unknown(provider_ids=ids, parts=known) if known:
            parts = known
        case _:
            return progress
    ledger = replace(progress.ledger.of(step), parts=max(1, parts))
    if route.steps[step].can_retract:
        ledger = replace(ledger, provider_ids=ids)
    return _with_step(progress, step, ledger)


def _end_of(outcome: Outcome) -> AttemptEnd:
    match outcome:
        case Accepted() | PartlyAccepted():
            return AttemptEnd.OK
        case Rejected(misconfigured=True) | Unknown():
            return AttemptEnd.FAILED
        case FailedForNow(reason=reason, throttled=throttled):
            is_busy = throttled and reason.code is ReasonCode.RATE_LIMITED
            return AttemptEnd.NEUTRAL if is_busy else AttemptEnd.FAILED
        case Rejected():
            return AttemptEnd.NEUTRAL
        case _:
            assert_never(outcome)


def _delivered_elsewhere(progress: Progress, step: int) -> bool:
    return any(other != step and ledger.status in POSITIVE for other, ledger in progress.ledger.steps.items())


def _left(progress: Progress, status: Status) -> Progress:
    """Mark the current channel as left, unless it had delivered."""
    if progress.ledger.of(progress.step).status in POSITIVE:
        return progress
    return _with_status(progress, progress.step, status)


def _with_status(progress: Progress, step: int, status: Status) -> Progress:
    return _with_step(progress, step, replace(progress.ledger.of(step), status=status))


def _with_step(progress: Progress, step: int, ledger: StepLedger) -> Progress:
    return replace(progress, ledger=replace(progress.ledger, steps={**progress.ledger.steps, step: ledger}))


def _final(progress: Progress, now: datetime) -> Progress:
    return replace(
        progress,
        phase=Phase.FINAL,
        final_at=progress.final_at or now,
        step_due_at=None,
        retry_at=None,
        claim_due_at=None,
        horizon_at=None,
    )


def _passed(deadline: datetime | None, now: datetime) -> bool:
    return deadline is not None and deadline <= now


def _after(moment: datetime, seconds: float) -> datetime:
    return moment + timedelta(seconds=seconds)
