"""Carries decisions out: rows in the caller's transaction, then records. The one place where effects become facts.

Lanes, messages and attempts are written in this order, each by id (DESIGN 5). What is published afterwards is made
from the stored effects alone, so a record that is seen again publishes the same again.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from switchboard.bus import Outgoing
from switchboard.ids import MessageId
from switchboard.lanes import Ask, Ended, GateClosed, LockedLanes, Slot
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.progress import AttemptEnd, AttemptView, Decision, Effects, on_abandoned
from switchboard.rules.route import NOT_OPTED_IN
from switchboard.store import messages as store
from switchboard.store import timeline
from switchboard.store.messages import Message, PlannedAttempt
from switchboard.store.pool import Connection
from switchboard.telemetry.export import ask_for_export
from switchboard.telemetry.sampling import is_remarkable, is_sampled
from switchboard.timeline import Entry, Happening, Kind
from switchboard_router.asking import remember_choices
from switchboard_router.context import RouterContext
from switchboard_router.pacing import Pacing, units_of

AttemptKey = tuple[MessageId, int, int]

_GATE_CLOSED: Final = Reason(
    ReasonCode.CHANNEL_FAILURE, "The channel takes no messages at the moment and another is left."
)


class Decided(Struct, frozen=True):
    """A decision about one message, and the row of the timeline that tells of it."""

    message: Message
    decision: Decision
    kind: Kind
    cause: str
    #: What the fact brought; note, effects and place are filled in.
    entry: Entry = Entry()
    #: Steps of the route that must not be tried any more: the person has left since it was planned.
    barred: frozenset[int] = frozenset()

    def with_body(self, body: bytes | None) -> "Decided":
        """The same with the message's content, which locked rows are read without."""
        return replace(self, message=replace(self.message, body=body))

    @property
    def after(self) -> Message:
        """The message as the decision leaves it."""
        return replace(self.message, progress=self.decision.progress)


class Output(Struct, frozen=True):
    """What is to be published for one message once its rows are committed."""

    message: Message
    effects: Effects
    #: Of the attempt to dispatch. None: it waits in a lane, or was claimed or cancelled since.
    send_before: datetime | None


async def carry_out(
    context: RouterContext,
    connection: Connection,
    pacing: Pacing,
    lanes: LockedLanes,
    decided: Sequence[Decided],
    now: datetime,
    *,
    new: bool,
) -> list[Output]:
    """Write what was decided; `new` messages are inserted, others saved. Their lanes and rows are locked.

    Several decisions about one message stand in the order they were taken; the last one's progress is saved.
    """
    decided, slots = _reserve(context, pacing, lanes, decided, now)
    latest = {item.message.id: item.after for item in decided}
    if new:
        await store.insert(connection, list(latest.values()))
    else:
        await store.save(connection, latest.values())
    await _end_attempts(connection, lanes, decided)
    await store.insert_attempts(
        connection, [_attempt(item, slots) for item in decided if item.decision.effects.dispatch]
    )
    await lanes.save(connection)
    dispatches = ((item.message, item.decision.effects.dispatch) for item in decided)
    await remember_choices(context, connection, [(message, one[0]) for message, one in dispatches if one is not None])
    republished = [
        (*_key(item, item.decision.effects.redispatch), item.decision.progress.claim_due_at)
        for item in decided
        if item.decision.effects.redispatch and item.decision.progress.claim_due_at
    ]
    await store.republish(connection, republished)
    await timeline.write(connection, [_happening(item, now) for item in decided if _is_worth_telling(item)])
    await _ask_for_traces(context, connection, decided)
    return [
        Output(item.after, item.decision.effects, _send_before(item, slots))
        for item in decided
        if item.decision.effects
    ]


async def publish(context: RouterContext, outputs: Sequence[Output]) -> None:
    """Publish what was committed: callbacks first, and only when they are acknowledged the dispatches."""
    callbacks: list[Outgoing] = []
    dispatches: list[Outgoing] = []
    for output in outputs:
        webhooks = await context.configuration.webhooks(output.message.app_id) if output.effects.callbacks else ()
        for due in output.effects.callbacks:
            callbacks += context.publications.delivery_callback(output.message, due, webhooks)
        attempt = output.effects.dispatch or output.effects.redispatch
        if attempt is not None and output.send_before is not None:
            order = context.publications.dispatch(output.message, *attempt, output.send_before)
            dispatches += [order] if order is not None else []
    if callbacks:
        await context.producer.publish(callbacks)
    if dispatches:
        await context.producer.publish(dispatches)


def _reserve(
    context: RouterContext, pacing: Pacing, lanes: LockedLanes, decided: Sequence[Decided], now: datetime
) -> tuple[list[Decided], dict[AttemptKey, Slot | None]]:
    """Ask the lanes for slots. Where a gate is closed and another channel is left, decide again.

    Returns the decisions as they stand then, and for each attempt its slot, or None if it waits in its lane.
    """
    settled = list(decided)
    slots: dict[AttemptKey, Slot | None] = {}
    places = [place for place, item in enumerate(settled) if item.decision.effects.dispatch]
    while places:
        answers = lanes.reserve([_ask(context, pacing, settled[place]) for place in places])
        closed = []
        for place, answer in zip(places, answers, strict=True):
            if isinstance(answer, GateClosed):
                settled[place] = leave_channel(settled[place], _GATE_CLOSED, "gate closed", now)
                closed += [place] if settled[place].decision.effects.dispatch else []
                continue
            slot = answer if isinstance(answer, Slot) else None
            slots[_key(settled[place], settled[place].decision.effects.dispatch)] = slot
            if slot is None:
                settled[place] = _waits(settled[place])
        places = closed
    return settled, slots


def _ask(context: RouterContext, pacing: Pacing, item: Decided) -> Ask:
    step, submission = _dispatched(item)
    message = item.message
    route_step = message.route.steps[step]
    dispatch_lane, account_lane = pacing.lanes_of(message.app_id, route_step)
    return Ask(
        message_id=message.id,
        step=step,
        submission=submission,
        dispatch_lane=dispatch_lane,
        dispatch_limits=pacing.limits[dispatch_lane],
        account_lane=account_lane,
        account_limits=None if account_lane is None else pacing.limits[account_lane],
        high=message.high_priority,
        units=1 if account_lane is None else units_of(context, message, route_step),
        other_channel_left=step + 1 < len(message.route.steps),
    )


def leave_channel(item: Decided, reason: Reason, note: str, now: datetime) -> Decided:
    """Leave the planned attempt's channel before anything was sent, and every one after it that is barred."""
    item = _leave(item, reason, note, now)
    while (attempt := item.decision.effects.dispatch) is not None and attempt[0] in item.barred:
        item = _leave(item, NOT_OPTED_IN, "opted out", now)
    return item


def _leave(item: Decided, reason: Reason, note: str, now: datetime) -> Decided:
    step, submission = _dispatched(item)
    progress = item.decision.progress
    route = item.message.route
    again = on_abandoned(progress, route, AttemptView("planned"), step, submission, reason, False, now)
    effects = replace(
        again.effects,
        ended=item.decision.effects.ended,
        cancel=item.decision.effects.cancel,
        callbacks=item.decision.effects.callbacks + again.effects.callbacks,
    )
    return replace(item, decision=Decision(again.progress, effects, f"{item.decision.note}; {note}"))


def _waits(item: Decided) -> Decided:
    """The attempt waits in its lane: no deadline runs for it but the message's own."""
    progress = replace(item.decision.progress, claim_due_at=None)
    return replace(item, decision=replace(item.decision, progress=progress))


async def _end_attempts(connection: Connection, lanes: LockedLanes, decided: Sequence[Decided]) -> None:
    cancels = {_key(item, item.decision.effects.cancel) for item in decided if item.decision.effects.cancel}
    cancelled = await store.cancel_attempts(connection, cancels)
    await lanes.withdraw(connection, list(cancelled))
    ends: dict[AttemptKey, AttemptEnd] = {}
    for item in decided:
        if (ended := item.decision.effects.ended) is not None:
            key = (item.message.id, ended[0], ended[1])
            # An attempt that an adapter claimed before it could be taken back ends with its own outcome.
            if key not in cancels or key in cancelled:
                ends[key] = ended[2]
    left = await store.leave_lanes(connection, ends)
    lanes.release([Ended(counted_in, ends[key]) for key, counted_in in left.items()])


def _attempt(item: Decided, slots: dict[AttemptKey, Slot | None]) -> PlannedAttempt:
    step, submission = _dispatched(item)
    route_step = item.message.route.steps[step]
    slot = slots[item.message.id, step, submission]
    return PlannedAttempt(
        item.message.id,
        step,
        submission,
        item.message.app_id,
        route_step.account,
        route_step.identity,
        None if slot is None else item.decision.progress.claim_due_at,
        () if slot is None else slot.lanes,
    )


def _send_before(item: Decided, slots: dict[AttemptKey, Slot | None]) -> datetime | None:
    effects = item.decision.effects
    if effects.redispatch or (effects.dispatch and slots[_key(item, effects.dispatch)] is not None):
        return item.decision.progress.claim_due_at
    return None


def _happening(item: Decided, now: datetime) -> Happening:
    decision = item.decision
    step = item.entry.step if item.entry.step is not None else decision.progress.step
    route = item.message.route
    entry = replace(
        item.entry,
        note=decision.note,
        channel=route.steps[step].channel if step < len(route.steps) else "",
        step=step,
        submission=item.entry.submission if item.entry.submission is not None else decision.progress.submission,
        effects=decision.effects or None,
    )
    return Happening(item.message.id, now, item.kind, item.cause, entry)


def _is_worth_telling(item: Decided) -> bool:
    """A deadline that moved nothing is no event in a message's life."""
    return item.kind is not Kind.DUE or bool(item.decision.effects) or item.decision.progress.is_final


async def _ask_for_traces(context: RouterContext, connection: Connection, decided: Sequence[Decided]) -> None:
    ratio = context.trace_ratio
    if ratio is None:
        return
    wanted = [
        item.message.id
        for item in decided
        if is_remarkable(item.decision) or (item.decision.progress.is_final and is_sampled(item.message.id, ratio))
    ]
    await ask_for_export(connection, wanted)


def _dispatched(item: Decided) -> tuple[int, int]:
    assert item.decision.effects.dispatch is not None
    return item.decision.effects.dispatch


def _key(item: Decided, attempt: tuple[int, int] | None) -> AttemptKey:
    assert attempt is not None
    return (item.message.id, *attempt)
