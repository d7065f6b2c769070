"""What planning under lock promises, on a real database."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from itertools import pairwise

from tests.contract.lanes.conftest import ACCOUNT, LANE, LIMITS, SMS, World, key_of

from switchboard.ids import AccountKey, AppId
from switchboard.lanes import (
    Ended,
    GateClosed,
    Limits,
    Slot,
    Waiting,
    account_lane,
    dispatch_lane,
    lock_lanes,
    release,
    reserve,
)
from switchboard.rules.progress import AttemptEnd

MILLISECOND = timedelta(milliseconds=1)


async def test_an_idle_lane_gives_slots_up_to_100_ms_ahead_and_the_rest_wait(world: World) -> None:
    now = await world.now()

    decisions = await world.plan([world.ask() for _ in range(4)], now)

    slots = [decision.slot_at for decision in decisions if isinstance(decision, Slot)]
    assert [(slot - now) / MILLISECOND for slot in slots] == [0, 50]
    assert decisions[2:] == [Waiting(LANE, 1), Waiting(LANE, 2)]


async def test_nobody_passes_those_who_wait(world: World) -> None:
    await world.plan([world.ask() for _ in range(3)])
    await world.advance(60)

    assert await world.plan([world.ask()]) == [Waiting(LANE, 2)]


async def test_a_lane_that_is_full_in_flight_lets_others_wait_until_one_ends(world: World) -> None:
    narrow = Limits(per_second=1000, max_in_flight=1)
    first, second = world.ask(limits=narrow), world.ask(limits=narrow)
    decisions = await world.plan([first, second])

    assert isinstance(decisions[0], Slot)
    assert decisions[1] == Waiting(LANE, 1)
    await world.end([key_of(second)])
    await world.end([key_of(first)])
    assert isinstance((await world.plan([world.ask(limits=narrow)]))[0], Slot)


async def test_apps_that_share_an_account_share_its_pace_in_its_own_unit(world: World) -> None:
    slow = Limits(per_second=10, max_in_flight=1000)
    fast = Limits(per_second=1000, max_in_flight=1000)
    lanes = [dispatch_lane(AppId(f"app{n}"), SMS) for n in range(3)]
    asks = [
        world.ask(lane, fast, account_lane=ACCOUNT, account_limits=slow, units=units)
        for lane, units in zip(lanes, (2, 1, 1), strict=True)
    ]
    now = await world.now()

    first = await world.plan(asks, now)
    await world.advance(0.2)
    later = await world.plan([world.ask(lanes[0], fast, account_lane=ACCOUNT, account_limits=slow)])

    assert [isinstance(decision, Slot) for decision in first] == [True, False, False]
    assert isinstance(later[0], Slot)
    assert later[0].slot_at >= now + timedelta(milliseconds=200)


async def test_changed_limits_apply_to_a_lane_that_exists(world: World) -> None:
    await world.plan([world.ask()])
    await world.plan([world.ask(limits=Limits(per_second=500, max_in_flight=7))])

    lane = await world.lane()
    assert (lane["interval_ns"], lane["max_in_flight"]) == (2_000_000, 7)


async def close(world: World, asks_limits: Limits = LIMITS) -> None:
    """Let ten attempts fail, so that the gate closes."""
    for _ in range(10):
        ask = world.ask(limits=asks_limits)
        await world.plan([ask])
        await world.end([key_of(ask)], AttemptEnd.FAILED)
        await world.advance(1)


async def test_a_closed_gate_sends_messages_with_another_channel_there_and_lets_the_rest_wait(world: World) -> None:
    await close(world)

    decisions = await world.plan([world.ask(other_channel_left=True), world.ask(), world.ask()])

    assert decisions == [GateClosed(LANE), Waiting(LANE, 1), Waiting(LANE, 2)]


async def test_the_first_message_after_probe_at_is_the_only_probe_whoever_plans_it(world: World) -> None:
    await close(world)
    await world.advance(5)

    plans = [world.plan([world.ask(other_channel_left=True)]) for _ in range(6)]
    decisions = [decision for plan in await asyncio.gather(*plans) for decision in plan]

    assert sum(isinstance(decision, Slot) and decision.probe for decision in decisions) == 1
    assert sum(decision == GateClosed(LANE) for decision in decisions) == 5


async def test_a_probe_that_ends_well_opens_the_gate_and_one_that_fails_waits_longer(world: World) -> None:
    await close(world)
    await world.advance(5)
    probe = world.ask()
    await world.plan([probe])
    await world.end([key_of(probe)], AttemptEnd.FAILED)
    await world.advance(9)
    assert await world.plan([world.ask(other_channel_left=True)]) == [GateClosed(LANE)]
    await world.advance(1)

    probe = world.ask()
    assert isinstance((await world.plan([probe]))[0], Slot)
    await world.end([key_of(probe)])

    assert (await world.lane())["gate"] == "open"


async def test_planners_over_the_same_lanes_neither_deadlock_nor_grant_a_slot_twice(world: World) -> None:
    lanes = [dispatch_lane(AppId(f"app{n}"), SMS) for n in range(12)]
    accounts = [account_lane(AccountKey(f"account{n}")) for n in range(4)]
    limits = Limits(per_second=200, max_in_flight=10_000)
    slots: dict[str, list[float]] = {}

    async def plan_some(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(15):
            picks = [(chance.choice(lanes), chance.choice(accounts)) for _ in range(10)]
            asks = [world.ask(lane, limits, account_lane=account, account_limits=limits) for lane, account in picks]
            for decision in await world.plan(asks):
                if isinstance(decision, Slot):
                    for lane in decision.lanes:
                        slots.setdefault(lane, []).append(decision.slot_at.timestamp())

    await asyncio.gather(*(plan_some(seed) for seed in range(8)))

    assert slots
    for times in slots.values():
        times.sort()
        assert all(after - before >= 0.005 - 1e-6 for before, after in pairwise(times))
    counted, rows = await world.counters_and_rows()
    assert counted == rows


async def test_reserve_and_release_serve_transactions_that_need_only_one_of_them(world: World) -> None:
    asks = [world.ask() for _ in range(3)]
    async with world.pool.acquire() as connection, connection.transaction():
        now = await world.now(connection)
        decisions = await reserve(connection, asks, now)
    async with world.pool.acquire() as connection, connection.transaction():
        ended = [Ended(decision.lanes, AttemptEnd.OK) for decision in decisions if isinstance(decision, Slot)]
        await release(connection, ended, now)

    lane = await world.lane()
    assert (lane["waiting"], lane["in_flight"]) == (1, 0)


async def test_an_attempt_leaves_lanes_that_its_end_did_not_expect(world: World) -> None:
    ask = world.ask(account_lane=ACCOUNT, account_limits=LIMITS)
    [decision] = await world.plan([ask])
    assert isinstance(decision, Slot)

    async with world.pool.acquire() as connection, connection.transaction():
        locked = await lock_lanes(connection, {LANE: LIMITS}, await world.now(connection))
        locked.release([Ended(decision.lanes, AttemptEnd.OK)])
        await locked.save(connection)

    assert [(await world.lane(lane))["in_flight"] for lane in (LANE, ACCOUNT)] == [0, 0]
