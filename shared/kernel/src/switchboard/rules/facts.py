"""What follows every fact about a message to a contact: wait, retry here, switch the channel, or end.

`start` makes the progress of a new message; `on_outcome`, `on_receipt`, `on_abandoned`, `on_resolved` and
`on_dead_letter` take it from there, as `deadlines.on_due` does when time passed. Each returns a `Decision`: the new
progress and the effects to carry out, as data. Applying the same fact twice changes nothing the second time: what was
raised before is not raised again.

Published as a truth table in docs/reference/failover.md. Sources: DESIGN 2, 5; conversation-api 11.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, assert_never

from msgspec.structs import replace

from switchboard.channel.outcome import Accepted, FailedForNow, Outcome, PartlyAccepted, Rejected, Unknown
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.moves import EXPIRED, after, dispatch, doubt, fail, finish, passed, raise_report, retry, switch
from switchboard.rules.progress import (
    APP_GONE,
    DEFAULT_TTL_SECONDS,
    INTERNAL_ERROR,
    AttemptEnd,
    AttemptView,
    CallbackDue,
    Decision,
    Effects,
    Phase,
    Policy,
    Progress,
    StepLedger,
)
from switchboard.rules.route import Route, RouteStep
from switchboard.status import POSITIVE, Status, raises
from switchboard.trigger import Trigger

_AWAITS_OUTCOME: Final = frozenset({Phase.SENDING, Phase.CLAIMED, Phase.UNKNOWN})
_UNSAID: Final = Reason(ReasonCode.UNKNOWN, "The channel reported a failure and did not say why.")


def start(route: Route, accepted_at: datetime, ttl_seconds: int | None, now: datetime) -> Decision:
    """Begin: plan the first attempt, or end at once where there is nothing to try or no time left."""
    ttl_ends_at = None if ttl_seconds is None else after(accepted_at, ttl_seconds)
    begun = Progress(
        Phase.SENDING,
        Status.QUEUED,
        accepted_at,
        expires_at=ttl_ends_at or after(accepted_at, DEFAULT_TTL_SECONDS),
        ttl_ends_at=ttl_ends_at,
    )
    if not route.steps:
        assert route.empty_because is not None
        return fail(begun, route.empty_because, now, "no channel")
    if begun.expires_at is not None and begun.expires_at <= now:
        return fail(begun, EXPIRED, now, "expired before it was planned")
    return dispatch(begun, now, "planned")


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
        progress = progress.with_step(step, replace(progress.ledger.of(step), in_doubt=False))
    match outcome:
        case Accepted():
            decision = _accept(_merge_ids(progress, route, step, outcome), route, now, finished_at or now)
        case PartlyAccepted(reason=reason):
            decision = fail(_merge_ids(progress, route, step, outcome), reason, now, "partly accepted")
        case Rejected(reason=reason, fails_message=True):
            decision = fail(progress, reason, now, "rejected, the message itself")
        case Rejected(reason=reason):
            decision = switch(progress, route, reason, now, "rejected")
        case FailedForNow():
            decision = retry(progress, route, policy, outcome, now)
        case Unknown():
            decision = doubt(_merge_ids(progress, route, step, outcome), route, policy, outcome.reason, now)
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
    progress = progress.with_step(step, after)
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
        decision = fail(progress, reason, now, "purged")
    else:
        decision = switch(progress, route, reason, now, "abandoned")
    effects = replace(decision.effects, ended=(step, submission, AttemptEnd.NEUTRAL), cancel=(step, submission))
    return replace(decision, effects=effects)


def on_app_gone(decision: Decision, now: datetime) -> Decision:
    """The app was deleted: what was decided to be tried next is not tried, and the message ends."""
    if decision.effects.dispatch is None:
        return decision
    over = fail(decision.progress, APP_GONE, now, f"{decision.note}; the app is gone")
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


def on_dead_letter(progress: Progress, now: datetime) -> Decision:
    """A record about the message cannot be handled and never will be: the message ends, and the app is told."""
    if progress.is_final:
        return Decision(progress, note="dead letter of a finished message")
    decision = fail(progress, INTERNAL_ERROR, now, "dead letter")
    current = (progress.step, progress.submission)
    is_out = progress.phase in (Phase.SENDING, Phase.CLAIMED)
    effects = replace(
        decision.effects,
        cancel=current if progress.phase is Phase.SENDING else None,
        ended=(*current, AttemptEnd.NEUTRAL) if is_out else None,
    )
    return replace(decision, effects=effects)


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
    if progress.delivered_elsewhere(progress.step) or not step.receipts:
        return finish(taken, now)
    can_switch = progress.step + 1 < len(route.steps) and not passed(progress.ttl_ends_at, now)
    switches_at = after(now, step.wait_seconds) if can_switch and step.wait_seconds is not None else None
    retracts_at = progress.ttl_ends_at if step.can_retract else None
    return replace(
        taken,
        horizon_at=after(now, step.horizon_seconds),
        step_due_at=min((at for at in (switches_at, retracts_at) if at is not None), default=None),
    )


def _failed_receipt(progress: Progress, route: Route, step: int, reason: Reason, now: datetime) -> Decision:
    if step != progress.step or progress.phase not in (Phase.SUBMITTED, Phase.UNKNOWN):
        return Decision(progress.with_status(step, Status.FAILED), note="failure of a channel already left")
    parts = progress.ledger.of(step).part_status.values()
    if any(status in POSITIVE for status in parts):
        return fail(progress, reason, now, "a part failed after another was delivered")
    return switch(progress, route, reason, now, "failed receipt")


def _delivered(
    progress: Progress, route: Route, step: int, submission: int, status: Status, now: datetime, event_at: datetime
) -> Decision:
    """A channel delivered. Ends the message, whatever else was going on; a planned attempt elsewhere is taken back."""
    twice = progress.delivered_elsewhere(step)
    counted = replace(
        progress, ledger=replace(progress.ledger, delivered_twice=progress.ledger.delivered_twice or twice)
    )
    told, callbacks = raise_report(counted.with_status(step, status), step, submission, status, None, event_at)
    is_better = progress.status not in POSITIVE or raises(progress.status, status)
    done = replace(told, status=status, status_at=event_at, reason=None) if is_better else told
    if status is Status.DELIVERED and _waits_to_be_read(progress, route, step):
        return Decision(done, Effects(callbacks=callbacks), "delivered, not read yet")
    cancel = None
    if progress.phase is Phase.SENDING and step != progress.step:
        cancel = (progress.step, progress.submission)
    ended = (*cancel, AttemptEnd.NEUTRAL) if cancel else None
    return Decision(
        finish(done, now), Effects(ended, cancel, callbacks), "read" if status is Status.READ else "delivered"
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
    progress = progress.with_step(step, taken)
    if progress.delivered_elsewhere(step):
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
    return progress.with_step(step, ledger)


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
