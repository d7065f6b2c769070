"""Pacing: no second of any lane holds a slot too many, and hardly one is wasted, however many lanes there are."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import cycle, islice
from math import floor
from typing import Final

from msgspec import Struct
from tests.benchmarks.bench import Bench, Figure, Result, percentile
from tests.benchmarks.lines import clear, lay, let_go, stop_all
from tests.benchmarks.product import SMS, UNPACED, Product, Void

from switchboard.ids import AppId
from switchboard.lanes import dispatch_lane
from switchboard.testing import wait_until

_ROUTERS: Final = ("--instances", "router=2")
_SENDERS: Final = 1_000
#: Of twenty senders one is fast, as 50 are of 1,000.
_OF_WHICH_ONE_IS_FAST: Final = 20
#: Low in what issue 5 names, 1 to 5/s and 20 to 80/s: all of them together are many for two cores.
_FAST: Final = (20, 20, 20, 50, 20, 20, 20, 80)
_SLOW: Final = (1, 1, 2, 1, 1, 3, 1, 1, 1, 1, 1, 5, 1, 1, 1, 1, 1)
_SECONDS: Final = 10
#: Until every lane has its drainer, and work left behind the window.
_BEFORE, _BEHIND = 1.5, 1.5
#: An attempt has so long from its slot to its claim (DESIGN 5).
_SEND_WINDOW: Final = timedelta(seconds=30)
_EACH_WHEN_SATURATED: Final = 10


class Pace(Struct, frozen=True):
    """How well lanes kept their pace over ten seconds in which they always had work."""

    #: Lanes of which some second held more slots than their limit.
    too_fast: int
    used: float
    #: The share that the hundredth part of the lanes did not reach.
    used_by_slowest: float


async def pacing(bench: Bench) -> Result:
    """Work waits in all lanes; slots are what the database's clock says they were.

    First as many senders as half of saturation allows, and everything runs. Then all of them while the adapter stands
    still, so that nobody takes what they are granted: two routers, the database and the broker alone.
    """
    async with bench.product(options=_ROUTERS) as running:
        rate = await bench.half(running)
        some = await running.more_apps(_within(_rates(), rate))
        everyone = await running.more_apps(islice(_rates(), _SENDERS))
        try:
            together = await _pace(running, some)
            with _frozen(running.running.pids["channel-adapter"]):
                saturated = await _saturated(running, list(everyone))
                alone = await _pace(running, everyone)
        finally:
            await clear(running)
    return Result(
        "pacing",
        [
            Figure("messages a second that two routers grant, nothing else running", saturated, "/s"),
            *_figures("routers alone", everyone, alone),
            Figure("routers alone: share of what saturates them", 100 * sum(everyone.values()) / saturated, "%"),
            *_figures("everything running", some, together),
        ],
        {"half": rate},
    )


def _figures(where: str, rates: Mapping[AppId, int], pace: Pace) -> list[Figure]:
    senders = f"{where}, {len(rates):,} senders, {sum(rates.values()):,}/s"
    return [
        Figure(f"{senders}: too fast in some 1 s", pace.too_fast, "lanes", "0", pace.too_fast == 0),
        Figure(f"{senders}: used over 10 s", 100 * pace.used, "%", "≥ 99", pace.used >= 0.99),
        Figure(f"{senders}: used, slowest 1 %", 100 * pace.used_by_slowest, "%"),
    ]


def _rates() -> Iterator[int]:
    """The limits of senders in turn."""
    fast, slow = cycle(_FAST), cycle(_SLOW)
    while True:
        yield next(fast)
        yield from islice(slow, _OF_WHICH_ONE_IS_FAST - 1)


def _within(rates: Iterable[int], most: float) -> Iterator[int]:
    """The first of these that together stay below a rate."""
    for rate in rates:
        most -= rate
        if most < 0:
            return
        yield rate


async def _pace(running: Product, rates: Mapping[AppId, int]) -> Pace:
    """Let lanes go that have work for the whole time and some more."""
    laid = await lay(running, {app: floor(rate * (_BEFORE + _SECONDS + _BEHIND)) + 2 for app, rate in rates.items()})
    async with running.database() as connection:
        began_at: float = await connection.fetchval("SELECT extract(epoch FROM now())::float8")
        await let_go(running, list(rates), rates)
        # The time that passes is what is measured.
        await asyncio.sleep(_BEFORE + _SECONDS + 0.5)
        rows = await connection.fetch(
            "SELECT app_id, send_before FROM attempts WHERE message_id = ANY ($1) AND send_before IS NOT NULL",
            [waiting.message_id for waiting in laid],
        )
    await stop_all(running)
    slots: dict[AppId, list[float]] = {app_id: [] for app_id in rates}
    for row in rows:
        slots[row["app_id"]].append((row["send_before"] - _SEND_WINDOW).timestamp())
    first = began_at + _BEFORE
    within = {app: sum(first <= slot < first + _SECONDS for slot in found) for app, found in slots.items()}
    shares = sorted(number / (rates[app] * _SECONDS) for app, number in within.items())
    return Pace(
        too_fast=sum(_most_within(sorted(found), 1.0) > rates[app] for app, found in slots.items()),
        used=sum(within.values()) / (sum(rates.values()) * _SECONDS),
        used_by_slowest=percentile(shares, 0.01),
    )


async def _saturated(running: Product, apps: Sequence[AppId]) -> float:
    """Messages a second that are granted if nothing holds them back."""
    number = len(apps) * _EACH_WHEN_SATURATED
    laid = await lay(running, dict.fromkeys(apps, _EACH_WHEN_SATURATED))
    lanes = [dispatch_lane(app_id, SMS) for app_id in apps]
    began_at = time.monotonic()
    await let_go(running, apps, dict.fromkeys(apps, UNPACED))
    async with running.database() as connection:

        async def are_granted() -> bool:
            return not await connection.fetchval(_IS_ANYBODY_LEFT, lanes)

        await wait_until(are_granted, 60, f"{number} messages are granted")
        seconds = time.monotonic() - began_at
        granted = await connection.fetchval(
            "SELECT count(*) FROM attempts WHERE message_id = ANY ($1) AND send_before IS NOT NULL",
            [waiting.message_id for waiting in laid],
        )
    if granted != number:
        raise Void(f"{granted} of {number} were granted")
    return number / seconds


@contextmanager
def _frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


_IS_ANYBODY_LEFT: Final = "SELECT EXISTS (SELECT FROM lane_items WHERE token IS NULL AND lane = ANY ($1))"


def _most_within(moments: Sequence[float], seconds: float) -> int:
    """The largest number of moments in any half-open window of this length."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
