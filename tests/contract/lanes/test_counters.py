"""Whatever happens in whatever order, lanes count what there is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import pytest
from tests.contract.lanes.conftest import SMS, World

from switchboard.ids import AccountKey, AppId, MessageId
from switchboard.lanes import Limits, account_lane, dispatch_lane, operate
from switchboard.lanes.drainer import Drainer
from switchboard.lanes.round import Granted
from switchboard.rules.progress import AttemptEnd

LANES = [dispatch_lane(AppId(f"app{n}"), SMS) for n in range(4)]
ACCOUNTS = [account_lane(AccountKey(f"account{n}")) for n in range(2)]


class _Killed(Exception):
    """The process died."""


class RandomLife:
    """Several planners, adapters, drainers and operators at once, each doing what chance says."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)
        self.born = 0
        self.drainers = [self._drainer() for _ in range(2)]

    async def step(self) -> None:
        """A few things at the same time."""
        await asyncio.gather(*(self._something() for _ in range(self.chance.randint(1, 4))))
        await self.world.advance(self.chance.choice((0.0, 0.01, 0.2, 3.0)))

    def _something(self) -> Awaitable[None]:
        deeds: list[Callable[[], Awaitable[None]]] = [
            self.plan, self.plan, self.end, self.take_back, self.drain, self.drain, self.kill_a_drainer, self.operate,
        ]  # fmt: skip
        return self.chance.choice(deeds)()

    async def plan(self) -> None:
        """Plan up to 20 messages over all lanes."""
        limits = Limits(per_second=self.chance.choice((30, 100, 1000)), max_in_flight=self.chance.choice((5, 50)))
        await self.world.plan(
            [
                self.world.ask(
                    lane,
                    limits,
                    account_lane=ACCOUNTS[LANES.index(lane) % 2],
                    account_limits=Limits(per_second=100, max_in_flight=40),
                    high=self.chance.random() < 0.2,
                    units=self.chance.randint(1, 3),
                    other_channel_left=self.chance.random() < 0.3,
                )
                for lane in self.chance.choices(LANES, k=self.chance.randint(1, 20))
            ]
        )

    async def end(self) -> None:
        """End attempts that have their slot."""
        how = self.chance.choice((AttemptEnd.OK, AttemptEnd.FAILED, AttemptEnd.FAILED, AttemptEnd.NEUTRAL))
        await self.world.end(await self._keys("send_before IS NOT NULL"), how)

    async def take_back(self) -> None:
        """Take back attempts wherever they are."""
        await self.world.end(await self._keys("true"), AttemptEnd.NEUTRAL)

    async def drain(self) -> None:
        """One round of one drainer."""
        drainer = self.chance.choice(self.drainers)
        drainer.wake()
        with suppress(_Killed):
            await drainer.drain_once()

    async def kill_a_drainer(self) -> None:
        """The next thing this drainer does is to die between claim and publish; another life begins."""
        place = self.chance.randrange(len(self.drainers))

        async def dies(_: Sequence[Granted]) -> None:
            raise _Killed

        self.drainers[place]._publish = dies
        self.drainers[place].wake()
        with suppress(_Killed):
            await self.drainers[place].drain_once()
        self.drainers[place] = self._drainer()

    async def operate(self) -> None:
        """Pause or resume a lane, if it exists."""
        with suppress(operate.LaneNotFound):
            await self.chance.choice((operate.pause, operate.resume))(self.world.pool, self.chance.choice(LANES))

    async def finish(self) -> None:
        """Resume everything and drain it to the end."""
        for lane in (*LANES, *ACCOUNTS):
            with suppress(operate.LaneNotFound):
                await operate.resume(self.world.pool, lane)
        drainer = self._drainer()
        await self.world.advance(11)
        while await self.world.pool.fetchval("SELECT count(*) FROM lane_items WHERE abandoned_at IS NULL"):
            await self.world.drain(drainer, 2)
            await self.world.end(await self._keys("send_before IS NOT NULL", 1000))
            await self.world.advance(1)
        told = [(record.message_id, record.step, record.submission) for record in self.world.abandoned]
        await self.world.end(told, AttemptEnd.NEUTRAL)
        await self.world.end(await self._keys("send_before IS NOT NULL", 1000))

    async def _keys(self, which: str, number: int = 8) -> list[tuple[MessageId, int, int]]:
        rows = await self.world.pool.fetch(
            f"SELECT message_id, step, submission FROM attempts WHERE state = 'planned' AND {which}"
            " ORDER BY message_id LIMIT 200"
        )
        picked = self.chance.sample(rows, min(number, len(rows)))
        return [(MessageId(row["message_id"]), row["step"], row["submission"]) for row in picked]

    def _drainer(self) -> Drainer:
        self.born += 1
        return self.world.drainer(f"router-{self.born}")


@pytest.mark.parametrize("seed", range(5))
async def test_waiting_and_in_flight_never_drift(world: World, seed: int) -> None:
    life = RandomLife(world, seed)

    for _ in range(30):
        await life.step()
        counted, rows = await world.counters_and_rows()
        assert counted == rows

    await life.finish()
    counted, _ = await world.counters_and_rows()
    assert set(counted.values()) == {(0, 0)}
    planned = await world.pool.fetchval("SELECT count(*) FROM attempts WHERE state = 'planned'")
    assert planned == 0
