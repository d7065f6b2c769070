"""A database with lanes, and a planner and an adapter as small as they can be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from switchboard.identity import ChannelName
from switchboard.ids import AccountKey, AppId, LaneId, MessageId, mint
from switchboard.lanes import (
    Ask,
    Decision,
    Ended,
    GateClosed,
    Limits,
    Slot,
    account_lane,
    dispatch_lane,
    lanes_of,
    lock_lanes,
)
from switchboard.lanes.drainer import Drainer
from switchboard.lanes.round import Granted
from switchboard.records import StepAbandoned
from switchboard.rules.progress import AttemptEnd
from switchboard.store.pool import Connection, Pool, open_pool

SMS = ChannelName("SMS")
LANE = dispatch_lane(AppId("app"), SMS)
ACCOUNT = account_lane(AccountKey("smsc"))
LIMITS = Limits(per_second=20, max_in_flight=1000)


class World:
    """Plans attempts as the router does, remembers what was published, ends attempts."""

    def __init__(self, pool: Pool, dsn: str) -> None:
        self.pool = pool
        self.dsn = dsn
        self.published: list[Granted] = []
        self.abandoned: list[StepAbandoned] = []
        self._first = mint()
        self._number = 0

    def ask(self, lane: LaneId = LANE, limits: Limits = LIMITS, **changes: Any) -> Ask:
        """An ask of a new message. Message ids rise, so that tests can compare orders."""
        self._number += 1
        message_id = MessageId(self._first[:16] + f"{self._number:010d}")
        values: dict[str, object] = {
            "message_id": message_id, "step": 0, "submission": 1, "dispatch_lane": lane, "dispatch_limits": limits,
        }  # fmt: skip
        return Ask(**{**values, **changes})

    async def plan(self, asks: Sequence[Ask], now: datetime | None = None) -> list[Decision]:
        """Decide and write messages and attempts, in one transaction."""
        async with self.pool.acquire() as connection, connection.transaction():
            now = now or await self.now(connection)
            lanes = await lock_lanes(connection, lanes_of(asks), now)
            decisions = lanes.reserve(asks)
            await lanes.save(connection)
            await self._insert(connection, asks, decisions, now)
        return decisions

    async def end(self, keys: Sequence[tuple[MessageId, int, int]], how: AttemptEnd = AttemptEnd.OK) -> None:
        """End attempts that have their slot, or take waiting ones back, as the router does."""
        async with self.pool.acquire() as connection, connection.transaction():
            now = await self.now(connection)
            ids = [key[0] for key in keys]
            glimpse = await connection.fetch(
                "SELECT message_id, lanes, app_id, channel FROM attempts WHERE message_id = ANY ($1)", ids
            )
            wanted = {dispatch_lane(AppId(row["app_id"]), row["channel"]) for row in glimpse}
            wanted |= {LaneId(lane) for row in glimpse for lane in row["lanes"]} | {ACCOUNT}
            locked = await lock_lanes(connection, dict.fromkeys(wanted), now)
            await connection.execute("SELECT FROM messages WHERE id = ANY ($1) ORDER BY id FOR UPDATE", ids)
            rows = await connection.fetch(
                "UPDATE attempts SET state = CASE state WHEN 'planned' THEN 'cancelled' ELSE 'finished' END"
                " WHERE message_id = ANY ($1) AND state IN ('planned', 'claimed') RETURNING message_id, lanes",
                ids,
            )
            open_ids = {row["message_id"] for row in rows}
            locked.release(Ended([LaneId(lane) for lane in row["lanes"]], how) for row in rows)
            await locked.withdraw(connection, [key for key in keys if key[0] in open_ids])
            await locked.save(connection)

    def drainer(self, owner: str = "router-0", **changes: object) -> Drainer:
        """A drainer that publishes into `published` and `abandoned`."""
        return Drainer(self.pool, self._publish, self._tell, owner=owner, **changes)  # type: ignore[arg-type]

    async def drain(self, drainer: Drainer, rounds: int = 10) -> int:
        """Rounds until nothing more can go now."""
        done = 0
        for _ in range(rounds):
            drainer.wake()
            done += await drainer.drain_once()
        return done

    async def now(self, connection: Connection | None = None) -> datetime:
        """The database's clock."""
        now: datetime = await (connection or self.pool).fetchval("SELECT switchboard.now()")
        return now

    async def advance(self, seconds: float) -> None:
        """Move the database's clock."""
        await self.pool.execute("UPDATE clock SET shift = shift + $1", timedelta(seconds=seconds))

    async def freeze(self, at: datetime) -> None:
        """Let the database's clock all but stand still."""
        await self.pool.execute(
            "UPDATE clock SET scale = 0.000001, anchor = moment, shift = $1 - moment"
            " FROM (SELECT clock_timestamp() AS moment) AS real",
            at,
        )

    async def lane(self, lane: LaneId = LANE) -> dict[str, object]:
        """A lane's row."""
        row = await self.pool.fetchrow("SELECT * FROM lanes WHERE id = $1", lane)
        assert row is not None
        return dict(row)

    async def counters_and_rows(self) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
        """(waiting, in flight) of every lane as its row says, and as the items and attempts say."""
        lanes = await self.pool.fetch("SELECT id, waiting, in_flight FROM lanes")
        items = await self.pool.fetch("SELECT lane, count(*) AS number FROM lane_items GROUP BY lane")
        flying = await self.pool.fetch(
            "SELECT lane, count(*) AS number FROM attempts, unnest(lanes) AS lane"
            " WHERE state IN ('planned', 'claimed') GROUP BY lane"
        )
        waits = {row["lane"]: row["number"] for row in items}
        flies = {row["lane"]: row["number"] for row in flying}
        counted = {row["id"]: (row["waiting"], row["in_flight"]) for row in lanes}
        return counted, {lane: (waits.get(lane, 0), flies.get(lane, 0)) for lane in counted}

    async def _publish(self, items: Sequence[Granted]) -> None:
        self.published += items

    async def _tell(self, records: Sequence[StepAbandoned]) -> None:
        self.abandoned += records

    async def _insert(
        self, connection: Connection, asks: Sequence[Ask], decisions: Sequence[Decision], now: datetime
    ) -> None:
        planned = [
            (ask, decision)
            for ask, decision in zip(asks, decisions, strict=True)
            if not isinstance(decision, GateClosed)
        ]
        await connection.executemany(
            "INSERT INTO messages (id, project_id, app_id, direction, mode, accepted_at, channel, identity, phase,"
            " status, status_at, expires_at, next_due) VALUES"
            " ($1, 'project', 'app', 'TO_CONTACT', 'DISPATCH', $2, 'SMS', '1', 'SENDING', 'QUEUED', $2, $3, $3)",
            [(ask.message_id, now, now + timedelta(hours=72)) for ask, _ in planned],
        )
        await connection.executemany(
            "INSERT INTO attempts (message_id, step, submission, app_id, account, channel, identity, state,"
            " send_before, lanes) VALUES ($1, $2, $3, $4, 'smsc', $5, '1', 'planned', $6, $7)",
            [
                (
                    ask.message_id, ask.step, ask.submission, *ask.dispatch_lane.split(":")[1:],
                    now + timedelta(seconds=30) if isinstance(decision, Slot) else None,
                    list(decision.lanes) if isinstance(decision, Slot) else [],
                )
                for ask, decision in planned
            ],
        )  # fmt: skip


def key_of(ask: Ask) -> tuple[MessageId, int, int]:
    """The attempt an ask is about."""
    return ask.message_id, ask.step, ask.submission


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    """A world over a fresh database."""
    pool = await open_pool(database, size=12, service="test")
    yield World(pool, database)
    await pool.close()
