"""Writes what became of tries: all that ended meanwhile in one transaction, and only then may anybody forget them."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import structlog
from msgspec import Struct
from msgspec.structs import replace

from switchboard.callbacks.schedule import LIFETIME, Head, Verdict, may_be_passed, next_try
from switchboard.crash import crash_point
from switchboard.ids import LaneId, MessageId, time_of
from switchboard.lanes.lane import Limits
from switchboard.lanes.locked import LockedLanes
from switchboard.store import timeline
from switchboard.store.pool import TRANSIENT_ERRORS, Connection, Pool
from switchboard.store.writes import Writes
from switchboard.telemetry.export import ask_for_export
from switchboard.telemetry.sampling import is_sampled
from switchboard.timeline import Entry, Happening, Kind
from switchboard.trigger import Trigger
from switchboard_callback_delivery import pacing, store
from switchboard_callback_delivery.event import Event, Lease, Outcome
from switchboard_callback_delivery.metrics import DeliveryMetrics
from switchboard_callback_delivery.store import Ended, Health, KnownHealth, Parked

log = structlog.get_logger()

_MOST: Final = 500
#: How often it is written that an endpoint takes callbacks, while nothing is wrong with it.
_TAKEN_EVERY: Final = timedelta(seconds=10)
_RETRY_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
#: Triggers whose stream is a message with a timeline.
_OF_MESSAGES: Final = frozenset(
    {
        Trigger.MESSAGE_DELIVERY, Trigger.MESSAGE_SUBMIT, Trigger.MESSAGE_INBOUND, Trigger.EVENT_DELIVERY,
        Trigger.EVENT_INBOUND, Trigger.MESSAGE_INBOUND_SMART_CONVERSATION_REDACTION,
    }
)  # fmt: skip
#: Older messages may have no partition of the timeline any more.
_TIMELINE_AGE: Final = timedelta(days=5)


class Waiting(Struct):
    """An outcome and who waits for it to be written."""

    outcome: Outcome
    written: "asyncio.Future[None]"


class Recorder:
    """Takes outcomes from any number of tries and writes them in batches."""

    def __init__(
        self,
        pool: Pool,
        metrics: DeliveryMetrics,
        *,
        trace_ratio: float | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`trace_ratio` of messages are traced whatever happens, and all whose callbacks fail; None: none is."""
        self._pool = pool
        self._trace_ratio = trace_ratio
        self._tallies: dict[LaneId, tuple[int, int]] = {}
        self._metrics = metrics
        self._jitter = jitter
        self._queue: list[Waiting] = []
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._told_taken: dict[LaneId, datetime] = {}
        #: Called after a batch freed streams or opened gates: there may be something due.
        self.on_due: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin writing."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write what is there, then end. If the database is away, what is unwritten is tried again by others."""
        self._stopping = True
        self._some.set()
        if self._task is not None:
            await self._task
            with suppress(*TRANSIENT_ERRORS):
                await self.save_tallies()

    async def save_tallies(self) -> None:
        """Write how many tries of each endpoint were taken and failed since the last time."""
        if not self._tallies:
            return
        tallies, self._tallies = self._tallies, {}
        try:
            async with self._pool.acquire() as connection:
                await store.add_tallies(connection, tallies, await store.database_now(connection))
        except BaseException:
            for lane, (taken, failed) in tallies.items():
                self._tally(lane, taken, failed)
            raise

    def _tally(self, lane: LaneId, taken: int, failed: int) -> None:
        before = self._tallies.get(lane, (0, 0))
        self._tallies[lane] = (before[0] + taken, before[1] + failed)

    async def record(self, outcome: Outcome) -> None:
        """Return once the outcome is committed. Raises what makes this one outcome impossible to write."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(Waiting(outcome, written))
        self._some.set()
        await written

    async def _run(self) -> None:
        while not self._stopping or self._queue:
            await self._some.wait()
            batch, self._queue = self._queue[:_MOST], self._queue[_MOST:]
            if not self._queue and not self._stopping:
                self._some.clear()
            if batch:
                await self._write(batch)

    async def _write(self, batch: Sequence[Waiting]) -> None:
        tries = 0
        while True:
            try:
                await self._commit([waiting.outcome for waiting in batch])
            except TRANSIENT_ERRORS as error:
                if self._stopping and tries >= len(_RETRY_SECONDS):
                    self._fail(batch, error)
                    return
                log.warning("outcomes cannot be written yet", outcomes=len(batch), error=type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)])
                tries += 1
            except Exception as error:  # noqa: BLE001  # a bad row is told to whoever tried it, the others are written
                if len(batch) == 1:
                    log.error("an outcome cannot be written", error=type(error).__name__)
                    self._fail(batch, error)
                    return
                for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                    await self._write(half)
                return
            else:
                crash_point("delivery.after_record")
                self._metrics.recorded([waiting.outcome for waiting in batch])
                for waiting in batch:
                    if not waiting.written.done():
                        waiting.written.set_result(None)
                return

    @staticmethod
    def _fail(batch: Sequence[Waiting], error: BaseException) -> None:
        for waiting in batch:
            if not waiting.written.done():
                waiting.written.set_exception(error)

    async def _commit(self, outcomes: Sequence[Outcome]) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            now = await store.database_now(connection)
            plan = _Plan(outcomes, now, self._told_taken)
            lanes = await store.lock(connection, plan.lanes, now)
            held = await store.ours(connection, plan.leases) if plan.leases else set()
            known = await store.known_healths(connection, plan.failing) if plan.failing else {}
            await self._save(connection, lanes, plan, held, known, now)
            await lanes.save(connection)
            happenings = _happenings(outcomes, now)
            writes = Writes()
            timeline.add(writes, happenings)
            self._ask_for_traces(writes, outcomes, happenings)
            await writes.execute(connection)
        self._told_taken.update(dict.fromkeys(plan.taken, now))
        for lane, (taken, failed) in plan.tallies().items():
            self._tally(lane, taken, failed)
        if plan.leases:
            self.on_due()

    def _ask_for_traces(self, writes: Writes, outcomes: Sequence[Outcome], happenings: Sequence[Happening]) -> None:
        ratio = self._trace_ratio
        if ratio is None:
            return
        untaken = {outcome.event.stream for outcome in outcomes if outcome.verdict is not Verdict.TAKEN}
        told = {happening.message_id for happening in happenings}
        ask_for_export(writes, [id for id in told if id in untaken or is_sampled(id, ratio)])

    async def _save(
        self,
        connection: Connection,
        lanes: LockedLanes,
        plan: "_Plan",
        held: set[Lease],
        known: dict[LaneId, KnownHealth],
        now: datetime,
    ) -> None:
        fresh_ended: list[Ended] = []
        fresh_parked: list[Parked] = []
        ended: list[tuple[Lease, Ended]] = []
        failed: list[tuple[Lease, Parked]] = []
        passed: list[Lease] = []
        for outcome in plan.outcomes:
            done = _ended(outcome)
            parked = None if done else self._parked(outcome, now)
            if not done and parked is None:
                done = _expired(outcome)
            if outcome.lease is None:
                if done:
                    fresh_ended.append(done)
                elif parked:
                    fresh_parked.append(parked)
            elif outcome.lease not in held:
                self._metrics.fenced.inc()
            elif done:
                ended.append((outcome.lease, done))
            elif parked:
                failed.append((outcome.lease, parked))
                since = parked.event.first_failed_at
                if not outcome.lease.apart and since is not None:
                    health = known.get(outcome.lease.endpoint)
                    if may_be_passed(since, health.taken_at if health else None, now):
                        passed.append(outcome.lease)
        recovered = plan.teach(lanes, {lane for lane, health in known.items() if health.is_suspended}, now)
        await store.insert_ended(connection, fresh_ended, now)
        await store.park(connection, lanes, fresh_parked, now)
        await store.finish(connection, lanes, ended, now)
        await store.reschedule(connection, failed, now)
        await store.pass_heads(connection, passed, now)
        await store.save_health(connection, plan.healths(recovered), now)

    def _parked(self, outcome: Outcome, now: datetime) -> Parked | None:
        """The event as it waits for its next try; None if this was the last."""
        event = outcome.event
        tried = replace(
            event,
            first_failed_at=event.first_failed_at or now,
            expires_at=event.expires_at or now + LIFETIME,
        )
        head = Head(tried.expires_at or now, event.attempts + 1, tried.first_failed_at)
        due_at = next_try(head, now, jitter=self._jitter(), retry_after_seconds=outcome.retry_after_seconds)
        if due_at is None:
            return None
        return Parked(
            event=tried,
            due_at=due_at,
            attempts=event.attempts + 1,
            status=outcome.status,
            error=outcome.error,
            answer=outcome.answer,
        )


class _Plan:
    """What a batch of outcomes touches."""

    def __init__(self, outcomes: Sequence[Outcome], now: datetime, told_taken: dict[LaneId, datetime]) -> None:
        self.outcomes = outcomes
        self.leases = [outcome.lease for outcome in outcomes if outcome.lease is not None]
        self._tried = [outcome for outcome in outcomes if outcome.verdict is not None]
        #: Endpoints of which it is written that they take callbacks: as news, or now and then.
        self.taken = {
            outcome.event.endpoint
            for outcome in self._tried
            if outcome.verdict is Verdict.TAKEN
            and (outcome.lease is not None or now - told_taken.get(outcome.event.endpoint, _LONG_AGO) >= _TAKEN_EVERY)
        }
        self.failing = {outcome.event.endpoint for outcome in self._tried if outcome.verdict is not Verdict.TAKEN}
        # Successes of endpoints with which nothing is wrong teach their lanes nothing.
        self.lanes: dict[LaneId, Limits | None] = {
            outcome.event.endpoint: pacing.limits_of(outcome.per_second)
            for outcome in outcomes
            if outcome.lease is not None or outcome.verdict is not Verdict.TAKEN or outcome.lane_is_troubled
        }

    def tallies(self) -> dict[LaneId, tuple[int, int]]:
        """Tries by endpoint: taken, and not."""
        taken = Counter(outcome.event.endpoint for outcome in self._tried if outcome.verdict is Verdict.TAKEN)
        tried = Counter(outcome.event.endpoint for outcome in self._tried)
        return {lane: (taken[lane], count - taken[lane]) for lane, count in tried.items()}

    def teach(self, lanes: LockedLanes, suspended: Collection[LaneId], now: datetime) -> set[LaneId]:
        """Let the lanes learn. Returns those whose gate opened."""
        verdicts: dict[LaneId, list[Verdict]] = {}
        for outcome in self._tried:
            if outcome.verdict is not None and outcome.event.endpoint in lanes:
                verdicts.setdefault(outcome.event.endpoint, []).append(outcome.verdict)
        return {
            lane
            for lane, found in sorted(verdicts.items())
            if pacing.learn(lanes, lane, found, now, is_suspended=lane in suspended)
        }

    def healths(self, recovered: set[LaneId]) -> dict[LaneId, Health]:
        """What is written of the endpoints' health."""
        healths: dict[LaneId, Health] = {}
        for outcome in self._tried:
            event = outcome.event
            if event.endpoint not in self.taken and outcome.verdict is Verdict.TAKEN:
                continue
            health = healths.setdefault(event.endpoint, Health(app_id=event.app_id, webhook_id=event.webhook_id))
            health.recovered = event.endpoint in recovered
            if outcome.verdict is Verdict.TAKEN:
                health.taken = True
            else:
                health.failed = True
                health.status, health.error, health.answer = outcome.status, outcome.error, outcome.answer
        return healths


def _ended(outcome: Outcome) -> Ended | None:
    """The event as it ended; None if it is to be tried again, or expires."""
    if outcome.dismissed:
        return _end(outcome, "dismissed", outcome.event.attempts)
    match outcome.verdict:
        case Verdict.TAKEN:
            return _end(outcome, "delivered", outcome.event.attempts + 1)
        case Verdict.ENDED:
            return _end(outcome, "ended", outcome.event.attempts + 1)
        case None:
            return _end(outcome, "expired", outcome.event.attempts)
        case _:
            return None


def _expired(outcome: Outcome) -> Ended:
    return _end(outcome, "expired", outcome.event.attempts + 1)


def _end(outcome: Outcome, state: str, attempts: int) -> Ended:
    return Ended(
        event=outcome.event,
        state=state,
        attempts=attempts,
        status=outcome.status if outcome.verdict is not None else None,
        error=outcome.error,
        answer=outcome.answer,
        kept_seconds=outcome.kept_seconds,
    )


def _happenings(outcomes: Sequence[Outcome], now: datetime) -> list[Happening]:
    return [
        Happening(
            message_id=MessageId(outcome.event.stream),
            at=now,
            kind=Kind.CALLBACK,
            cause=f"callback:{outcome.event.id}:{_number(outcome)}",
            entry=Entry(
                note=_note(outcome),
                callback_id=outcome.event.id,
                endpoint=outcome.event.endpoint,
                try_number=_number(outcome),
                http_status=outcome.status,
                started_at=outcome.started_at,
            ),
        )
        for outcome in outcomes
        if has_timeline(outcome.event, now)
    ]


def _number(outcome: Outcome) -> int:
    """Of the try, over all rounds; of the last one if there was none."""
    event = outcome.event
    return event.earlier_attempts + event.attempts + (outcome.verdict is not None)


def _note(outcome: Outcome) -> str:
    if outcome.verdict is None:
        return "dismissed" if outcome.dismissed else "expired"
    return f"{outcome.event.trigger} {outcome.verdict}"


def has_timeline(event: Event, now: datetime) -> bool:
    """Tell whether a callback is about a message whose timeline can still be written."""
    if event.trigger not in _OF_MESSAGES:
        return False
    try:
        return now - time_of(event.stream) < _TIMELINE_AGE
    except ValueError:
        return False


_LONG_AGO: Final = time_of("00000000000000000000000000")
