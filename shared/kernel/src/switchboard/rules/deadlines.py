"""What follows when time passed for a message to a contact: its expiry, a retry, a report that did not come.

Published, with `facts`, as a truth table in docs/reference/failover.md. Sources: DESIGN 5; conversation-api 11.
"""

from datetime import datetime
from typing import Final

from msgspec.structs import replace

from switchboard.channel.outcome import FailedForNow
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.moves import (
    EXPIRED,
    after,
    dispatch,
    doubt,
    fail,
    finish,
    give_up_on_unknown,
    passed,
    retry,
    send_before_at,
    switch,
)
from switchboard.rules.progress import (
    AttemptEnd,
    AttemptView,
    Decision,
    Effects,
    Phase,
    Policy,
    Progress,
)
from switchboard.rules.route import Route, RouteStep
from switchboard.status import POSITIVE

#: After a claimed attempt's send deadline, how long its outcome may still be on the way.
OUTCOME_GRACE_SECONDS: Final = 30
_NO_REPORT: Final = Reason(
    ReasonCode.DELIVERY_REPORT_TIME_OUT, "The channel did not report delivery within the waiting time."
)
_DOUBT: Final = Reason(ReasonCode.UNKNOWN, "It is not known whether the channel took the message.")
_UNCLAIMED: Final = FailedForNow(Reason(ReasonCode.CHANNEL_FAILURE, "No adapter took the message in time."))


def on_due(progress: Progress, route: Route, policy: Policy, attempt: AttemptView | None, now: datetime) -> Decision:
    """Act on the deadlines that really passed. The attempt's recorded outcome was applied before."""
    match progress.phase:
        case Phase.SENDING | Phase.CLAIMED if attempt is not None and attempt.state == "claimed":
            return _claimed_due(progress, route, policy, attempt, now)
        case Phase.SENDING | Phase.CLAIMED:
            return _planned_due(progress, route, policy, attempt, now)
        case Phase.RETRYING if passed(progress.expires_at, now):
            return fail(progress, EXPIRED, now, "expired")
        case Phase.RETRYING if passed(progress.retry_at, now):
            return dispatch(progress, now, "retry")
        case Phase.SUBMITTED if passed(progress.horizon_at, now):
            return Decision(finish(progress, now), note="receipt horizon passed")
        case Phase.SUBMITTED if passed(progress.step_due_at, now):
            if passed(progress.ttl_ends_at, now):
                return _past_ttl(progress)
            return switch(progress, route, _NO_REPORT, now, "no report in time")
        case Phase.UNKNOWN if passed(progress.step_due_at, now):
            return give_up_on_unknown(progress, route, policy, progress.reason or _DOUBT, now)
        case _:
            return Decision(progress, note="not due")


def _seen_claimed(progress: Progress, claimed_at: datetime, step: RouteStep) -> Progress:
    """The router saw that an adapter has the attempt: only its outcome or its deadline counts now."""
    return replace(
        progress,
        phase=Phase.CLAIMED,
        claim_due_at=after(claimed_at, step.send_timeout_seconds + OUTCOME_GRACE_SECONDS),
    )


def _claimed_due(progress: Progress, route: Route, policy: Policy, attempt: AttemptView, now: datetime) -> Decision:
    assert attempt.claimed_at is not None
    seen = _seen_claimed(progress, attempt.claimed_at, route.steps[progress.step])
    if not passed(seen.claim_due_at, now):
        return Decision(seen, note="claimed")
    decision = doubt(seen, route, policy, _DOUBT, now)
    ended = (progress.step, progress.submission, AttemptEnd.FAILED)
    return replace(decision, effects=replace(decision.effects, ended=ended))


def _planned_due(
    progress: Progress, route: Route, policy: Policy, attempt: AttemptView | None, now: datetime
) -> Decision:
    current = (progress.step, progress.submission)
    if passed(progress.expires_at, now):
        decision = fail(progress, EXPIRED, now, "expired")
        return replace(
            decision, effects=replace(decision.effects, cancel=current, ended=(*current, AttemptEnd.NEUTRAL))
        )
    if attempt is None or attempt.send_before is None:
        # It waits in a lane: only its expiry runs.
        return Decision(replace(progress, claim_due_at=None), note="waits in its lane")
    if not passed(attempt.send_before, now):
        return Decision(replace(progress, claim_due_at=attempt.send_before), note="not due")
    if not attempt.republished:
        again = replace(progress, claim_due_at=send_before_at(progress, now))
        return Decision(again, Effects(redispatch=current), "not claimed in time, published once more")
    decision = retry(progress, route, policy, _UNCLAIMED, now)
    effects = replace(decision.effects, cancel=current, ended=(*current, AttemptEnd.FAILED))
    return replace(decision, effects=effects)


def _past_ttl(progress: Progress) -> Decision:
    """The time of a message is up that a channel has: no other one is tried, and this one takes it back if it can."""
    waits = replace(progress, step_due_at=None)
    ledger = progress.ledger.of(progress.step)
    if not ledger.provider_ids or ledger.status in POSITIVE:
        return Decision(waits, note="TTL passed, no failover")
    return Decision(waits, Effects(retract=(progress.step, progress.submission)), "TTL passed, taken back")
