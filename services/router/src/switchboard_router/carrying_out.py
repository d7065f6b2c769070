"""Carries decisions out: rows in one statement, then records. The one place where effects become facts.

Lanes, messages and attempts are locked in this order, each by id (DESIGN 5); what was decided about a message counts
only if it still is as it was seen then (ADR 0025). Where attempts only take slots or give them back, that holds for
their lanes, too (ADR 0030). What is published afterwards is made from the stored effects alone, so a record that is
seen again publishes the same again.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from switchboard.bus import Outgoing
from switchboard.ids import LaneId, MessageId
from switchboard.lanes import Ask, Ended, GateClosed, LockedLanes, Slot, dispatch_lane, lock_lanes
from switchboard.lanes.line import in_line
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.facts import on_abandoned
from switchboard.rules.progress import AttemptEnd, AttemptView, Decision, Effects
from switchboard.rules.route import NOT_OPTED_IN
from switchboard.store import messages as store
from switchboard.store import timeline
from switchboard.store.messages import Change, Look, Message, Moved, PlannedAttempt, StoredAttempt
from switchboard.store.pool import Connection
from switchboard.store.writes import Unmet, Writes
from switchboard.telemetry.export import ask_for_export
from switchboard.telemetry.sampling import is_remarkable, is_sampled
from switchboard.timeline import Entry, Happening, Kind
from switchboard_router.asking import choices_of, remember_choices
from switchboard_router.context import RouterContext
from switchboard_router.pacing import Pacing, pacing_for, units_of

AttemptKey = tuple[MessageId, int, int]

#: What is decided by whether an adapter has claimed the attempt: it must not do so meanwhile.
_JUDGE_ATTEMPTS: Final = frozenset({Kind.DUE, Kind.ABANDONED})
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
    #: The message's current attempt when it was decided about; None of new messages.
    attempt: StoredAttempt | None = None
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
    #: Of the attempt to dispatch. None: it is in a line, or was claimed or cancelled since.
    send_before: datetime | None


class Settled(Struct, frozen=True):
    """Decisions as they stand once their lanes were asked."""

    decided: Sequence[Decided]
    #: The slot of each attempt that begins, or None if it waits in its lane.
    slots: Mapping[AttemptKey, Slot | None]
    #: Attempts that ended, whose rows are still to say that no lane counts them.
    left: Sequence[AttemptKey]


def moves_lanes(item: Decided) -> bool:
    """Whether attempts begin, end or are taken back by this: their lanes are then locked first."""
    effects = item.decision.effects
    return bool(effects.ended or effects.cancel or effects.dispatch or effects.redispatch)


async def lock_lanes_of(
    context: RouterContext, connection: Connection, decided: Sequence[Decided], now: datetime
) -> tuple[Pacing, LockedLanes]:
    """Lock the lanes in which attempts begin or end by these decisions, before any message or attempt.

    A closed gate sends a message on to its next channels: those are locked, too.
    """
    entered = [
        (item.message.app_id, step)
        for item in decided
        if item.decision.effects.dispatch
        for step in item.message.route.steps[item.decision.progress.step :]
    ]
    pacing = await pacing_for(context, entered)
    lanes = pacing.lanes(_left_by(decided))
    context.lanes.note_locked(lanes)
    return pacing, await lock_lanes(connection, lanes, now)


def _left_by(decided: Sequence[Decided]) -> set[LaneId]:
    return {lane for item in decided for lane in _left(item)}


def _left(item: Decided) -> Iterator[LaneId]:
    """The lanes that count the ended attempt, and the one in which a cancelled attempt may still wait."""
    effects, message = item.decision.effects, item.message
    if effects.ended and item.attempt:
        yield from item.attempt.lanes
    if effects.cancel:
        yield dispatch_lane(message.app_id, message.route.steps[effects.cancel[0]].channel)


async def carry_out(
    context: RouterContext,
    connection: Connection,
    pacing: Pacing,
    lanes: LockedLanes,
    decided: Sequence[Decided],
    now: datetime,
    *,
    looks: Mapping[MessageId, Look] | None,
    writes: Writes | None = None,
) -> list[Output]:
    """Write what was decided, in the caller's transaction, which holds the lanes.

    Messages that were looked at are changed, with None new ones are inserted; `writes` may bring more to write with
    them. There is one decision about a message. Raises Moved if a message is not as it was seen any more: then nothing
    of the transaction may stay.
    """
    decided, slots = _reserve(context, pacing, lanes, decided, now)
    writes = writes or Writes()
    takes_back = any(item.decision.effects.cancel for item in decided)
    if looks is not None and takes_back:
        # Attempts are taken back by a statement of their own, for which their messages must be locked.
        await store.hold(connection, _changes(decided, looks, now))
    settled = Settled(decided, slots, await _end_attempts(connection, lanes, decided))
    _add_rows(writes, context, settled, looks, now, claims_count=not takes_back)
    await lanes.write_into(writes, connection)
    await remember_choices(context, connection, _dispatches(decided))
    held = await writes.execute(connection, returning="" if looks is None else "held")
    if looks is not None and len(held) < len(decided):
        raise Moved
    # Only now: an attempt that this very transaction has changed would not be as it was seen.
    again = _republished(decided)
    await store.republish(connection, again)
    return _outputs(settled, await in_line(connection, {key[:3] for key in again}))


async def carry_out_unlocked(
    context: RouterContext,
    connection: Connection,
    decided: Sequence[Decided],
    now: datetime,
    *,
    looks: Mapping[MessageId, Look] | None,
    writes: Writes | None = None,
) -> list[Output] | None:
    """Do what `carry_out` does by one statement, without a transaction around it, on lanes as this process saw them.

    None: nothing was written, and the lanes are to be locked. Somebody has to wait, is taken back or woken, or another
    process was faster. Raises Moved if a message is not as it was seen any more.
    """
    if not all(_is_plain(item) for item in decided) or choices_of(context, _dispatches(decided)):
        return None
    pacing = await pacing_for(
        context, [(message.app_id, message.route.steps[step]) for message, step in _dispatches(decided)]
    )
    async with context.lanes.look(connection, pacing.lanes(_left_by(decided)), now) as seen:
        settled = None if seen is None else _settle_plainly(context, pacing, seen.lanes, decided)
        if seen is None or settled is None:
            return None
        writes = Writes() if writes is None else writes.copy()
        seen.write_into(writes)
        _add_rows(writes, context, settled, looks, now, claims_count=True)
        if looks is not None:
            writes.require("held", rows=len(decided))
        try:
            await seen.execute(writes, connection)
        except Unmet as unmet:
            if unmet.part == "held":
                raise Moved from unmet
            return None
    return _outputs(settled)


def _settle_plainly(
    context: RouterContext, pacing: Pacing, lanes: LockedLanes, decided: Sequence[Decided]
) -> Settled | None:
    """Ask the lanes for slots, and give back those of attempts that ended. None: that is not all there is to do."""
    starting = [item for item in decided if item.decision.effects.dispatch]
    answers = lanes.reserve([_ask(context, pacing, item) for item in starting])
    slots = {(item.message.id, *_dispatched(item)): answer for item, answer in zip(starting, answers, strict=True)}
    granted = {key: slot for key, slot in slots.items() if isinstance(slot, Slot)}
    ended = _ended(decided)
    lanes.release(ended.values())
    return None if len(granted) < len(slots) or lanes.needs_lock else Settled(decided, granted, list(ended))


def _is_plain(item: Decided) -> bool:
    """Whether attempts only begin or end by this: none is taken back or published again, and all are known."""
    effects = item.decision.effects
    if effects.cancel or effects.redispatch:
        return False
    return effects.ended is None or (item.attempt is not None and item.attempt.key == _key(item, effects.ended[:2]))


def _ended(decided: Sequence[Decided]) -> dict[AttemptKey, Ended]:
    """The attempts that end by plain decisions, as far as a lane counts them."""
    return {
        item.attempt.key: Ended(item.attempt.lanes, effects.ended[2])
        for item in decided
        if (effects := item.decision.effects).ended and item.attempt and item.attempt.lanes
    }


def _add_rows(
    writes: Writes,
    context: RouterContext,
    settled: Settled,
    looks: Mapping[MessageId, Look] | None,
    now: datetime,
    *,
    claims_count: bool,
) -> None:
    """Add the rows of messages, timelines and attempts. `claims_count`: a claim meanwhile may undo what was decided."""
    decided = settled.decided
    if looks is None:
        store.insert(writes, [item.after for item in decided])
        timeline.add(writes, [_happening(item, now) for item in decided])
    else:
        store.change(
            writes, _changes(decided, looks, now), with_attempts=claims_count and _judges_attempts(decided)
        )  # fmt: skip
    ask_for_export(writes, _traced(context, decided))
    store.note_left(writes, settled.left)
    store.insert_attempts(writes, [_attempt(item, settled.slots) for item in decided if item.decision.effects.dispatch])


def _outputs(settled: Settled, drainers: Collection[AttemptKey] = ()) -> list[Output]:
    """What is to be published. `drainers`: attempts that are published once more, but not by us."""
    return [
        Output(item.after, item.decision.effects, _send_before(item, settled.slots, drainers))
        for item in settled.decided
        if _leads_on(item)
    ]


async def write_down(
    context: RouterContext,
    connection: Connection,
    decided: Sequence[Decided],
    looks: Mapping[MessageId, Look],
    now: datetime,
) -> tuple[list[Output], set[MessageId]]:
    """Write decisions that move no lane, as one statement without a transaction around it.

    Returns what is to be published, and the messages that were not as they were seen any more: of those nothing was
    written.
    """
    writes = Writes()
    store.change(writes, _changes(decided, looks, now), with_attempts=_judges_attempts(decided))
    ask_for_export(writes, _traced(context, decided))
    held = {row["id"] for row in await writes.execute(connection, returning="held")}
    told = [item for item in decided if item.message.id in held]
    outputs = [Output(item.after, item.decision.effects, None) for item in told if _leads_on(item)]
    return outputs, {item.message.id for item in decided} - held


def _changes(decided: Sequence[Decided], looks: Mapping[MessageId, Look], now: datetime) -> list[Change]:
    return [
        Change(looks[item.message.id], item.after, _happening(item, now) if _is_worth_telling(item) else None)
        for item in decided
    ]


def _judges_attempts(decided: Sequence[Decided]) -> bool:
    return any(item.kind in _JUDGE_ATTEMPTS for item in decided)


def _dispatches(decided: Sequence[Decided]) -> list[tuple[Message, int]]:
    return [(item.message, item.decision.effects.dispatch[0]) for item in decided if item.decision.effects.dispatch]


def _republished(decided: Sequence[Decided]) -> list[tuple[MessageId, int, int, datetime]]:
    return [
        (*_key(item, item.decision.effects.redispatch), item.decision.progress.claim_due_at)
        for item in decided
        if item.decision.effects.redispatch and item.decision.progress.claim_due_at
    ]


def _leads_on(item: Decided) -> bool:
    return bool(item.decision.effects)


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
        if output.effects.retract is not None:
            dispatches.append(context.publications.retraction(output.message, *output.effects.retract))
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


async def _end_attempts(connection: Connection, lanes: LockedLanes, decided: Sequence[Decided]) -> list[AttemptKey]:
    """Take attempts back, and count those that ended out of their lanes. Returns those whose rows are still to say so.

    An attempt that was looked at has the lanes it was seen with; another one is asked.
    """
    cancels = {_key(item, item.decision.effects.cancel) for item in decided if item.decision.effects.cancel}
    cancelled = await store.cancel_attempts(connection, cancels)
    await lanes.withdraw(connection, list(cancelled))
    ends: dict[AttemptKey, AttemptEnd] = {}
    seen: dict[AttemptKey, tuple[LaneId, ...]] = {}
    for item in decided:
        if (ended := item.decision.effects.ended) is not None:
            key = (item.message.id, ended[0], ended[1])
            # An attempt that an adapter claimed before it could be taken back ends with its own outcome.
            if key in cancels and key not in cancelled:
                continue
            ends[key] = ended[2]
            if item.attempt is not None and item.attempt.key == key:
                seen[key] = item.attempt.lanes
    asked = await store.leave_lanes(connection, ends.keys() - seen.keys())
    lanes.release([Ended(counted_in, ends[key]) for key, counted_in in {**seen, **asked}.items()])
    return [key for key, counted_in in seen.items() if counted_in]


def _attempt(item: Decided, slots: Mapping[AttemptKey, Slot | None]) -> PlannedAttempt:
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


def _send_before(
    item: Decided, slots: Mapping[AttemptKey, Slot | None], drainers: Collection[AttemptKey]
) -> datetime | None:
    """Until when the attempt to publish may be claimed. None: it waits in its line, or its drainer publishes it."""
    effects = item.decision.effects
    has_slot = effects.dispatch is not None and slots[_key(item, effects.dispatch)] is not None
    is_ours_again = effects.redispatch is not None and _key(item, effects.redispatch) not in drainers
    return item.decision.progress.claim_due_at if has_slot or is_ours_again else None


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


def _traced(context: RouterContext, decided: Sequence[Decided]) -> list[MessageId]:
    ratio = context.trace_ratio
    if ratio is None:
        return []
    return [
        item.message.id
        for item in decided
        if is_remarkable(item.decision) or (item.decision.progress.is_final and is_sampled(item.message.id, ratio))
    ]


def _dispatched(item: Decided) -> tuple[int, int]:
    assert item.decision.effects.dispatch is not None
    return item.decision.effects.dispatch


def _key(item: Decided, attempt: tuple[int, int] | None) -> AttemptKey:
    assert attempt is not None
    return (item.message.id, *attempt)
