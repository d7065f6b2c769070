"""`router.attempts`: something happened to an attempt, or a deadline passed, so decide what follows."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, assert_never

import structlog
from msgspec.structs import replace
from prometheus_client import Counter

from switchboard.bus import Outgoing, Record, Transient, WaitCause
from switchboard.callbacks.endpoint import endpoints_of
from switchboard.channel.contract import ReceiptFact
from switchboard.crash import crash_point
from switchboard.ids import MessageId
from switchboard.records import (
    AttemptFinished,
    AttemptsRecord,
    EventFinished,
    EventOverdue,
    EventsRecord,
    ReceiptReceived,
    StepAbandoned,
    TimerFired,
    UnknownResolved,
)
from switchboard.rules.deadlines import on_due
from switchboard.rules.facts import on_abandoned, on_app_gone, on_outcome, on_receipt, on_resolved
from switchboard.rules.progress import Decision, Phase, in_turn
from switchboard.store import conversations, timeline
from switchboard.store import messages as store
from switchboard.store import receipts as receipt_store
from switchboard.store.messages import Look, Message, Moved, StoredAttempt
from switchboard.store.pool import Connection
from switchboard.timeline import Entry, Kind
from switchboard.topics import ATTEMPTS
from switchboard.trigger import Trigger
from switchboard_router import events, unsubscribed
from switchboard_router.carrying_out import (
    Decided,
    Output,
    carry_out,
    carry_out_unlocked,
    lock_lanes_of,
    moves_lanes,
    publish,
    write_down,
)
from switchboard_router.context import RouterContext
from switchboard_router.people import taken_by
from switchboard_router.reading import decode_all
from switchboard_router.replay import replay

_orphans = Counter("switchboard_attempt_records_without_message", "Records about messages that have no row any more.")
_late = Counter("switchboard_receipts_late", "Receipts of a channel the message had already left.")
_twice = Counter("switchboard_messages_delivered_twice", "Messages that more than one channel delivered.")
log = structlog.get_logger()

#: How often messages are looked at again that moved on while they were decided about.
_LOOKS: Final = 5


class OnAttempts:
    """Decides batches of facts about attempts, at most one record per message in a batch."""

    def __init__(self, context: RouterContext) -> None:
        self._context = context

    async def __call__(self, records: Sequence[Record]) -> None:
        """Decide what follows these records: rows first, then what they lead to, published."""
        with decode_all(ATTEMPTS, records) as facts:
            of_events = [fact for fact in facts if isinstance(fact, EventFinished | EventOverdue)]
            of_messages = [fact for fact in facts if not isinstance(fact, EventFinished | EventOverdue)]
            outputs, learned = await self._decide_all(of_messages) if of_messages else ([], [])
            learned += await self._end_events(of_events) if of_events else []
            crash_point("router.after_commit")
            await publish(self._context, outputs)
            if learned:
                await self._context.producer.publish(learned)
            crash_point("router.after_publish")

    async def _end_events(self, facts: Sequence[EventsRecord]) -> list[Outgoing]:
        async with self._context.connection() as connection, connection.transaction():
            return await events.finish(self._context, connection, facts)

    async def _decide_all(self, facts: Sequence[AttemptsRecord]) -> tuple[list[Output], list[Outgoing]]:
        """Decide about all, and again about those that moved on. Raises Transient if they will not stand still."""
        outputs: list[Output] = []
        learned: list[Outgoing] = []
        left = {fact.message_id: fact for fact in facts}
        for _ in range(_LOOKS):
            async with self._context.connection() as connection:
                looks, now = await store.look(connection, {id: cause_of(fact) for id, fact in left.items()})
                told, moved = await self._decide_about(connection, left, looks, now)
            messages = {id: look.message for id, look in looks.items() if id not in moved}
            outputs += told
            learned += await unsubscribed.learn(self._context, [left[id] for id in messages], messages)
            _orphans.inc(len(left) - len(looks))
            left = {id: left[id] for id in moved}
            if not left:
                return outputs, learned
        raise Transient("messages move on while they are decided about", cause=WaitCause.CONFLICT)

    async def _decide_about(
        self,
        connection: Connection,
        facts: Mapping[MessageId, AttemptsRecord],
        looks: Mapping[MessageId, Look],
        now: datetime,
    ) -> tuple[list[Output], set[MessageId]]:
        """Decide and write. Returns what is to be published, and the messages of which nothing was written."""
        seen = [id for id, look in looks.items() if look.is_seen]
        decided = [await self._decide(connection, facts[id], look, now) for id, look in looks.items() if id not in seen]
        decided = await unsubscribed.leave_out(self._context, connection, decided, now)
        decided = [await self._unless_app_is_gone(item, now) for item in decided]
        decided = await self._with_contents(connection, decided)
        again = await replay(connection, [(id, cause_of(facts[id])) for id in seen], now)
        try:
            outputs, moved = await self._write(connection, facts, decided, looks, now)
        except Moved:
            outputs, moved = [], {item.message.id for item in decided}
        return again + outputs, moved

    async def _write(
        self,
        connection: Connection,
        facts: Mapping[MessageId, AttemptsRecord],
        decided: Sequence[Decided],
        looks: Mapping[MessageId, Look],
        now: datetime,
    ) -> tuple[list[Output], set[MessageId]]:
        if not decided:
            return [], set()
        if not any(moves_lanes(item) for item in decided):
            return await write_down(self._context, connection, decided, looks, now)
        taken = taken_by(facts.values(), {item.message.id: item.message for item in decided})
        if not taken:
            outputs = await carry_out_unlocked(self._context, connection, decided, now, looks=looks)
            if outputs is not None:
                return outputs, set()
        async with connection.transaction():
            pacing, lanes = await lock_lanes_of(self._context, connection, decided, now)
            # The active channels of conversations, which are locked after lanes and before messages.
            await conversations.note_channels(connection, taken)
            return await carry_out(self._context, connection, pacing, lanes, decided, now, looks=looks), set()

    async def _decide(self, connection: Connection, fact: AttemptsRecord, look: Look, now: datetime) -> Decided:
        message, attempt = look.message, look.attempt
        match fact:
            case TimerFired():
                return await self._on_timer(connection, message, fact, attempt, now)
            case ReceiptReceived() if (recorded := _recorded_outcome(message, attempt)) is not None:
                # Its writer may have died before it told the outcome: only that says how many parts there are.
                first = _decide_fact(message, recorded, attempt, now).decision
                then = _decide_fact(replace(message, progress=first.progress), fact, attempt, now)
                return replace(then, message=message, decision=in_turn(first, then.decision))
            case _:
                return _decide_fact(message, fact, attempt, now)

    async def _on_timer(
        self,
        connection: Connection,
        message: Message,
        fact: TimerFired,
        attempt: StoredAttempt | None,
        now: datetime,
    ) -> Decided:
        """Act on what is recorded and was never told (its writer died); only without any on deadlines that passed.

        All of it is one decision with one cause: a timer seen again publishes again all that it led to. A deadline
        that passed meanwhile fires again by itself.
        """
        decision: Decision | None = None
        for recorded in await self._recorded(connection, message, attempt):
            latest = message if decision is None else replace(message, progress=decision.progress)
            then = _decide_fact(latest, recorded, attempt, now).decision
            decision = then if decision is None else in_turn(decision, then)
        if decision is None:
            view = attempt.view if attempt is not None else None
            decision = on_due(message.progress, message.route, message.envelope.policy, view, now)
        return Decided(message, decision, Kind.DUE, cause_of(fact), attempt=attempt)

    async def _recorded(
        self, connection: Connection, message: Message, attempt: StoredAttempt | None
    ) -> list[AttemptFinished | ReceiptReceived]:
        recorded: list[AttemptFinished | ReceiptReceived] = []
        if (outcome := _recorded_outcome(message, attempt)) is not None:
            recorded.append(outcome)
        for met, fact in await receipt_store.waiting_for(connection, message.id):
            recorded.append(receipt_of(message.id, met.step, met.submission, met.provider_id, fact))
        causes = [cause_of(fact) for fact in recorded]
        told = await timeline.find_causes(connection, [message.id] * len(causes), causes) if causes else {}
        return [fact for fact in recorded if (message.id, cause_of(fact)) not in told]

    async def _unless_app_is_gone(self, item: Decided, now: datetime) -> Decided:
        if item.decision.effects.dispatch is None:
            return item
        if await self._context.configuration.app(item.message.app_id) is not None:
            return item
        return replace(item, decision=on_app_gone(item.decision, now))

    async def _with_contents(self, connection: Connection, decided: Sequence[Decided]) -> list[Decided]:
        """Contents are read only where they are to be published: most reports tell nothing of them."""
        wanted = {item.message.id for item in decided if await self._publishes_content(item)}
        bodies = await store.bodies(connection, wanted)
        return [item.with_body(bodies.get(item.message.id)) for item in decided]

    async def _publishes_content(self, item: Decided) -> bool:
        effects = item.decision.effects
        if effects.dispatch or effects.redispatch:
            return True
        if all(due.trigger is not Trigger.MESSAGE_SUBMIT for due in effects.callbacks):
            return False
        webhooks = await self._context.configuration.webhooks(item.message.app_id)
        return bool(endpoints_of(Trigger.MESSAGE_SUBMIT, webhooks))


def _recorded_outcome(message: Message, attempt: StoredAttempt | None) -> AttemptFinished | None:
    """The outcome of the current attempt that is recorded while the message still waits for it."""
    waits_for_outcome = message.progress.phase in (Phase.SENDING, Phase.CLAIMED, Phase.UNKNOWN)
    if attempt is None or attempt.outcome is None or not waits_for_outcome:
        return None
    finished_at = attempt.finished_at or message.accepted_at
    return AttemptFinished(message.id, attempt.step, attempt.submission, attempt.outcome, finished_at)


def cause_of(fact: AttemptsRecord) -> str:
    """The cause under which the timeline knows a record: equal for every sight of the same fact."""
    match fact:
        case AttemptFinished():
            return f"outcome:{fact.step}.{fact.submission}"
        case ReceiptReceived():
            part = hashlib.blake2b(fact.provider_id.encode(), digest_size=6).hexdigest()
            return f"receipt:{fact.step}.{fact.submission}:{part}:{fact.status}"
        case TimerFired():
            return f"due:{fact.due_at.isoformat()}"
        case StepAbandoned():
            return f"abandoned:{fact.step}.{fact.submission}"
        case UnknownResolved():
            return f"resolved:{fact.step}.{fact.submission}:{fact.status}"
        case _:
            assert_never(fact)


def receipt_of(
    message_id: MessageId, step: int, submission: int, provider_id: str, fact: ReceiptFact
) -> ReceiptReceived:
    """What a stored receipt says about the attempt it met."""
    return ReceiptReceived(
        message_id, step, submission, provider_id, fact.status, fact.event_at, fact.reason, fact.channel_metadata
    )


def _decide_fact(message: Message, fact: AttemptsRecord, attempt: StoredAttempt | None, now: datetime) -> Decided:
    progress, route, policy = message.progress, message.route, message.envelope.policy
    cause = cause_of(fact)
    match fact:
        case AttemptFinished(step=step, submission=submission, outcome=outcome):
            decision = on_outcome(progress, route, policy, step, submission, outcome, now, fact.finished_at)
            entry = Entry(
                step=step,
                submission=submission,
                status=str(type(outcome).__struct_config__.tag),
                reason=getattr(outcome, "reason", None),
            )
            return Decided(message, decision, Kind.OUTCOME, cause, entry, attempt)
        case ReceiptReceived(step=step, submission=submission):
            decision = on_receipt(
                progress, route, step, submission, fact.provider_id, fact.status, fact.reason, fact.event_at,
                fact.channel_metadata, now,
            )  # fmt: skip
            _count(message, decision, step)
            entry = Entry(step=step, submission=submission, status=fact.status, reason=fact.reason)
            return Decided(message, decision, Kind.RECEIPT, cause, entry, attempt)
        case StepAbandoned(step=step, submission=submission):
            view = attempt.view if attempt is not None else None
            decision = on_abandoned(progress, route, view, step, submission, fact.reason, fact.fails_message, now)
            entry = Entry(step=step, submission=submission, reason=fact.reason)
            return Decided(message, decision, Kind.ABANDONED, cause, entry, attempt)
        case UnknownResolved(step=step, submission=submission):
            decision = on_resolved(progress, route, step, submission, fact.status, fact.reason, now)
            entry = Entry(step=step, submission=submission, status=fact.status, reason=fact.reason)
            return Decided(message, decision, Kind.RESOLVED, cause, entry, attempt)
        case TimerFired():
            raise AssertionError("timers are decided by on_due")
        case _:
            assert_never(fact)


def _count(message: Message, decision: Decision, step: int) -> None:
    if step < message.progress.step:
        _late.inc()
    if decision.progress.ledger.delivered_twice and not message.progress.ledger.delivered_twice:
        _twice.inc()
