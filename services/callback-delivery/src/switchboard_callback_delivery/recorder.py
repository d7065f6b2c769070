"""Writes what became of tries: all that ended meanwhile in one transaction, and only then may anybody forget them."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from switchboard.callbacks.schedule import LIFETIME, Head, Verdict, may_be_passed, next_try
from switchboard.crash import crash_point
from switchboard.ids import LaneId, time_of
from switchboard.lanes.lane import Limits
from switchboard.lanes.locked import LockedLanes, lock_lanes
from switchboard.store import timeline
from switchboard.store.group_commit import GroupCommit
from switchboard.store.pool import TRANSIENT_ERRORS, Connection, Pool, database_now
from switchboard.store.writes import Writes
from switchboard.telemetry.export import ask_for_export
from switchboard.telemetry.sampling import is_sampled
from switchboard.timeline import Happening
from switchboard_callback_delivery import pacing
from switchboard_callback_delivery.event import Lease, Outcome
from switchboard_callback_delivery.happening import happening_of, has_timeline, oldest_with_timeline
from switchboard_callback_delivery.metrics import DeliveryMetrics
from switchboard_callback_delivery.store import streams
from switchboard_callback_delivery.store.events import Ended, Parked, insert_ended
from switchboard_callback_delivery.store.health import Health, KnownHealth, add_tallies, known_healths, save_health
from switchboard_callback_delivery.taken import is_plain, record_taken

#: How often it is written that an endpoint takes callbacks, while nothing is wrong with it.
_TAKEN_EVERY: Final = timedelta(seconds=10)
_RETRY_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)


class Recorder:
    """Takes outcomes from any number of tries and writes them in batches.

    Those of which there is nothing to say but that they were taken go apart from the rest, which waits for lanes.
    """

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
        self._plain = _one_after_the_other(self._commit_plain)
        self._rest = _one_after_the_other(self._commit)
        self._told_taken: dict[LaneId, datetime] = {}
        #: Called after a batch freed streams or opened gates: there may be something due.
        self.on_due: Callable[[], None] = lambda: None

    async def stop(self) -> None:
        """Write what is there, then end. If the database is away, what is unwritten is tried again by others."""
        await asyncio.gather(self._plain.stop(), self._rest.stop())
        with suppress(*TRANSIENT_ERRORS):
            await self.save_tallies()

    async def record(self, outcome: Outcome) -> None:
        """Return once the outcome is committed. Raises what makes this one outcome impossible to write."""
        await (self._plain if is_plain(outcome) else self._rest).submit(outcome)

    async def save_tallies(self) -> None:
        """Write how many tries of each endpoint were taken and failed since the last time."""
        if not self._tallies:
            return
        tallies, self._tallies = self._tallies, {}
        try:
            async with self._pool.acquire() as connection:
                await add_tallies(connection, tallies, await database_now(connection))
        except BaseException:
            for lane, (taken, failed) in tallies.items():
                self._tally(lane, taken, failed)
            raise

    def _tally(self, lane: LaneId, taken: int, failed: int) -> None:
        before = self._tallies.get(lane, (0, 0))
        self._tallies[lane] = (before[0] + taken, before[1] + failed)

    async def _commit_plain(self, outcomes: Sequence[Outcome]) -> list[None]:
        moment = max(outcome.granted_at for outcome in outcomes if outcome.granted_at is not None)
        news = {
            outcome.event.endpoint: outcome.event
            for outcome in outcomes
            if moment - self._told_taken.get(outcome.event.endpoint, _LONG_AGO) >= _TAKEN_EVERY
        }
        await record_taken(self._pool, outcomes, news, self._trace_ratio)
        self._told_taken.update(dict.fromkeys(news, moment))
        self._note(outcomes)
        return [None] * len(outcomes)

    async def _commit(self, outcomes: Sequence[Outcome]) -> list[None]:
        async with self._pool.acquire() as connection, connection.transaction():
            now = await database_now(connection)
            plan = _Plan(outcomes, now, self._told_taken)
            lanes = await lock_lanes(connection, plan.lanes, now)
            held = await streams.ours(connection, plan.leases) if plan.leases else set()
            known = await known_healths(connection, plan.failing) if plan.failing else {}
            await self._save(connection, lanes, plan, held, known, now)
            await lanes.save(connection)
            happenings = _happenings(outcomes, now)
            writes = Writes()
            timeline.add(writes, happenings)
            self._ask_for_traces(writes, outcomes, happenings)
            await writes.execute(connection)
        self._told_taken.update(dict.fromkeys(plan.taken, now))
        self._note(outcomes)
        if plan.leases:
            self.on_due()
        return [None] * len(outcomes)

    def _note(self, outcomes: Sequence[Outcome]) -> None:
        """Count what was just committed."""
        crash_point("delivery.after_record")
        self._metrics.recorded(outcomes)
        taken = Counter(outcome.event.endpoint for outcome in outcomes if outcome.verdict is Verdict.TAKEN)
        tried = Counter(outcome.event.endpoint for outcome in outcomes if outcome.verdict is not None)
        for lane, count in tried.items():
            self._tally(lane, taken[lane], count - taken[lane])

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
        await insert_ended(connection, fresh_ended, now)
        await streams.park(connection, lanes, fresh_parked, now)
        await streams.finish(connection, lanes, ended, now)
        await streams.reschedule(connection, failed, now)
        await streams.pass_heads(connection, passed, now)
        await save_health(connection, plan.healths(recovered), now)

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


def _one_after_the_other(
    commit: Callable[[Sequence[Outcome]], Awaitable[list[None]]],
) -> GroupCommit[Outcome, None]:
    """Batches of the same lanes, which would only wait for each other. A post that was made is told in any case."""
    return GroupCommit(commit, workers=1, retry_seconds=_RETRY_SECONDS, keeps_abandoned=True)


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
    oldest = oldest_with_timeline(now)
    return [happening_of(outcome, now) for outcome in outcomes if has_timeline(outcome.event, oldest)]


_LONG_AGO: Final = time_of("00000000000000000000000000")
