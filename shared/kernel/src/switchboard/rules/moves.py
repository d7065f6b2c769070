"""What can become of a message: one more try, another channel, doubt, or its end. The moves that decisions are made of.

Each returns a `Decision`; which move follows what is said in `facts` and `deadlines`.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from switchboard.channel.outcome import FailedForNow
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.progress import (
    DEFAULT_TTL_SECONDS,
    CallbackDue,
    Decision,
    Effects,
    OnUnknown,
    Phase,
    Policy,
    Progress,
)
from switchboard.rules.route import Route
from switchboard.status import POSITIVE, Status
from switchboard.trigger import Trigger

#: How long a published attempt may stay unclaimed (DESIGN 5).
CLAIM_SECONDS: Final = 30
#: How long an unknown outcome waits for a receipt where its step has no timer of its own.
UNKNOWN_WAIT_SECONDS: Final = 300
FIRST_BACKOFF_SECONDS: Final = 0.5
LONGEST_BACKOFF_SECONDS: Final = 300.0
#: How long a throttled attempt waits if the provider does not say.
THROTTLED_SECONDS: Final = 1.0

EXPIRED: Final = Reason(ReasonCode.MESSAGE_EXPIRED, "No channel took the message before its time was up.")
_NO_CALLBACKS: Final[tuple[CallbackDue, ...]] = ()


def dispatch(progress: Progress, now: datetime, note: str) -> Decision:
    """Plan the next attempt on the channel the message is at."""
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
        expires_at=progress.expires_at if not passed(progress.expires_at, now) else after(now, DEFAULT_TTL_SECONDS),
    )
    return Decision(sending, Effects(dispatch=(progress.step, submission)), note)


def send_before_at(progress: Progress, now: datetime) -> datetime:
    """Until when an attempt that is published now may be claimed: never past the TTL."""
    latest = after(now, CLAIM_SECONDS)
    return min(latest, progress.ttl_ends_at) if progress.ttl_ends_at is not None else latest


def retry(progress: Progress, route: Route, policy: Policy, outcome: FailedForNow, now: datetime) -> Decision:
    """Try this channel again after a pause, or leave it once its tries or their time are used up."""
    if progress.delivered_elsewhere(progress.step):
        return Decision(finish(progress, now), note="delivered elsewhere, no retry")
    first_failed_at = progress.first_failed_at or now
    tries = progress.tries + (0 if outcome.throttled else 1)
    limit = after(first_failed_at, policy.retry_seconds)
    used_up = outcome.max_tries is not None and tries >= max(2, outcome.max_tries)
    if used_up or (now >= limit and progress.first_failed_at is not None):
        return switch(progress, route, outcome.reason, now, "retries exhausted")
    delay = outcome.retry_after_seconds
    if delay is None:
        name = f"{progress.status_at.isoformat()}.{progress.step}.{progress.submission}"
        delay = THROTTLED_SECONDS if outcome.throttled else backoff_seconds(tries, name)
    waiting = replace(
        progress,
        phase=Phase.RETRYING,
        tries=tries,
        first_failed_at=first_failed_at,
        retry_at=max(now, min(after(now, delay), limit)),
        claim_due_at=None,
        step_due_at=None,
        reason=outcome.reason,
    )
    return Decision(waiting, note="throttled" if outcome.throttled else "failed for now")


def backoff_seconds(tries: int, attempt_name: str) -> float:
    """How long the try after `tries` waits: exponential with full jitter, the same for the same attempt every time."""
    most = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0**tries)
    share = int.from_bytes(hashlib.blake2b(attempt_name.encode(), digest_size=4).digest(), "big") / 2**32
    return float(most * share)


def switch(progress: Progress, route: Route, reason: Reason, now: datetime, note: str) -> Decision:
    """Leave this channel: go on with the next one, or end."""
    if progress.delivered_elsewhere(progress.step):
        return Decision(finish(_left(progress, Status.FAILED), now), note=f"{note}; delivered elsewhere")
    if progress.ledger.of(progress.step).in_doubt:
        return fail(progress, Reason(ReasonCode.UNKNOWN, reason.description), now, f"{note}, in doubt")
    waited_in_vain = progress.phase is not Phase.SUBMITTED and passed(progress.expires_at, now)
    if waited_in_vain or passed(progress.ttl_ends_at, now):
        return fail(progress, EXPIRED, now, f"{note}, expired")
    if progress.step + 1 >= len(route.steps):
        return fail(progress, reason, now, f"{note}, no channel left")
    if progress.ledger.of(progress.step).status in POSITIVE:
        # Delivered and not read: the next channel is tried, but nobody is told that the message went back.
        onward, callbacks = progress, _NO_CALLBACKS
    else:
        left = _left(progress, Status.SWITCHING_CHANNEL)
        told, callbacks = raise_report(left, progress.step, progress.submission, Status.SWITCHING_CHANNEL, reason, now)
        onward = replace(told, status=Status.SWITCHING_CHANNEL, status_at=now)
    onward = replace(onward, step=progress.step + 1, tries=0, first_failed_at=None, reason=None)
    decision = dispatch(onward, now, note)
    return replace(decision, effects=replace(decision.effects, callbacks=callbacks))


def doubt(progress: Progress, route: Route, policy: Policy, reason: Reason, now: datetime) -> Decision:
    """Nobody knows whether the channel has it: wait for a receipt, or try again where the provider drops duplicates."""
    step = route.steps[progress.step]
    if progress.phase is Phase.UNKNOWN:
        return Decision(progress, note="still unknown")
    if step.deduplicates:
        if policy.on_unknown is OnUnknown.FAIL:
            progress = progress.with_step(progress.step, replace(progress.ledger.of(progress.step), in_doubt=True))
        return retry(progress, route, policy, FailedForNow(reason), now)
    wait = (step.wait_seconds or UNKNOWN_WAIT_SECONDS) if step.receipts else 0
    doubtful = replace(
        progress,
        phase=Phase.UNKNOWN,
        reason=reason,
        claim_due_at=None,
        retry_at=None,
        step_due_at=after(now, wait),
    )
    if wait == 0:
        return give_up_on_unknown(doubtful, route, policy, reason, now)
    return Decision(doubtful, note="unknown")


def give_up_on_unknown(progress: Progress, route: Route, policy: Policy, reason: Reason, now: datetime) -> Decision:
    """No receipt cleared the doubt: fail, or go on with the next channel where the app wants that."""
    told = Reason(ReasonCode.UNKNOWN, reason.description)
    if policy.on_unknown is OnUnknown.FAIL_OVER:
        return switch(progress, route, told, now, "stayed unknown")
    return fail(progress, told, now, "stayed unknown")


def fail(progress: Progress, reason: Reason, now: datetime, note: str) -> Decision:
    """End as failed, and tell the app; a message that a channel delivered just ends."""
    if any(step.status in POSITIVE for step in progress.ledger.steps.values()):
        return Decision(finish(progress, now), note=f"{note}; delivered elsewhere")
    failed = replace(_left(progress, Status.FAILED), status=Status.FAILED, status_at=now, reason=reason)
    told, callbacks = raise_report(failed, progress.step, progress.submission, Status.FAILED, reason, now)
    return Decision(finish(told, now), Effects(callbacks=callbacks), note)


def finish(progress: Progress, now: datetime) -> Progress:
    """End: nothing is waited for any more."""
    return replace(
        progress,
        phase=Phase.FINAL,
        final_at=progress.final_at or now,
        step_due_at=None,
        retry_at=None,
        claim_due_at=None,
        horizon_at=None,
    )


def raise_report(
    progress: Progress, step: int, submission: int, status: Status, reason: Reason | None, event_at: datetime
) -> tuple[Progress, tuple[CallbackDue, ...]]:
    """Raise a delivery report: the next callback in the sequence of the message."""
    sequence = progress.ledger.raised + 1
    due = CallbackDue(
        Trigger.MESSAGE_DELIVERY, sequence, step, submission, event_at, status, reason,
        progress.ledger.of(step).channel_metadata,
    )  # fmt: skip
    return replace(progress, ledger=replace(progress.ledger, raised=sequence)), (due,)


def _left(progress: Progress, status: Status) -> Progress:
    """Mark the current channel as left, unless it had delivered."""
    if progress.ledger.of(progress.step).status in POSITIVE:
        return progress
    return progress.with_status(progress.step, status)


def passed(deadline: datetime | None, now: datetime) -> bool:
    """Whether there is such a deadline and its time has come."""
    return deadline is not None and deadline <= now


def after(moment: datetime, seconds: float) -> datetime:
    """The moment so long after another one."""
    return moment + timedelta(seconds=seconds)
