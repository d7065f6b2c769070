"""What every part of the benchmark works with, and what it hands back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import Struct
from tests.benchmarks.outside.driver import Report
from tests.benchmarks.product import STATUSES, Load, Product, World, product
from tests.benchmarks.servers import BenchServers
from tests.benchmarks.usage import cpu_between

from switchboard.testing import wait_until


class Figure(Struct, frozen=True):
    """One line of a result."""

    what: str
    value: float
    unit: str
    #: The bar of DESIGN 12 and whether it is met; "" and None where there is none.
    bar: str = ""
    met: bool | None = None


class Result(Struct, frozen=True):
    """What a part measured."""

    part: str
    figures: list[Figure]
    #: Everything behind the figures.
    details: dict[str, Any]


class Scale(Struct, frozen=True):
    """How much to measure."""

    pairs: int
    #: Messages before anything is measured: until the broker's code is compiled its share counts double.
    warm_up: int
    #: Messages of one run of ours, of the ordinary build, and of the bare legs.
    messages: int
    ordinary_messages: int
    bare_messages: int
    #: How long an open loop runs, in seconds.
    seconds: float
    #: Messages in the small backlog and in the large one.
    backlogs: tuple[int, int]
    #: Callbacks that wait beside the ones that are due, few and many.
    waiting: tuple[int, int]
    #: Callbacks of one run of their leg alone, and how many live endpoints they may have.
    callbacks: int
    endpoints: int


FULL = Scale(5, 5_000, 6_000, 1_500, 10_000, 15.0, (1_000, 100_000), (1_000, 1_000_000), 20_000, 5_000)
QUICK = Scale(1, 3_000, 3_000, 600, 5_000, 5.0, (1_000, 10_000), (1_000, 50_000), 8_000, 500)


class Bench(Struct, frozen=True):
    """One run of the benchmark."""

    folder: Path
    servers: BenchServers
    world: World
    scale: Scale
    #: Messages a second that are half of what this machine does; 0: found out first.
    half_rate: float = 0.0

    @asynccontextmanager
    async def product(
        self, environment: Mapping[str, str] | None = None, options: Sequence[str] = ()
    ) -> AsyncIterator[Product]:
        """Switchboard, up and warm."""
        async with product(self.folder / "up", self.servers, self.world, environment, options) as running:
            await running.warm(self.scale.warm_up)
            yield running

    async def half(self, running: Product) -> float:
        """Half of the rate at which it saturates."""
        return self.half_rate or (await cost_of(self, running, self.scale.messages)).per_second / 2


class Cost(Struct, frozen=True):
    """What a run of messages cost."""

    #: CPU-microseconds a message, by process.
    by_process: dict[str, float]
    per_second: float
    #: Resident bytes at the end, by process.
    memory: dict[str, int]

    @property
    def total(self) -> float:
        """Of everything but the world outside."""
        return sum(spent for name, spent in self.by_process.items() if not name.startswith("("))


async def cost_of(
    bench: Bench,
    running: Product,
    messages: int,
    load: Load | None = None,
    paths: Sequence[str] = ("/callbacks",),
    statuses: Sequence[str] = STATUSES,
) -> Cost:
    """Send messages as fast as they are taken and count until the last was reported at all of the paths."""
    await bench.world.reset()
    before = running.usage()
    report = await running.send(load or Load(messages=messages))
    for path in paths:
        await running.told(messages, path)
    after = running.usage()
    for path in paths:
        await running.check(report, [path], statuses=statuses)
    last = max(arrived for _, _, arrived in await bench.world.receiver.ask("arrivals", path="/callbacks"))
    spent = {name: seconds * 1e6 / messages for name, seconds in cpu_between(before, after).items()}
    memory = {name: usage.memory_bytes for name, usage in after.items()}
    return Cost(spent, messages / (last - report.began_at), memory)


async def told_of(bench: Bench, report: Report, seconds: float = 120.0) -> None:
    """Wait until these messages were reported DELIVERED, whatever else is."""
    ours = {sent.message_id for sent in report.sent}

    async def are_told() -> bool:
        arrivals = await bench.world.receiver.ask("arrivals", path="/callbacks")
        return ours <= {message_id for message_id, status, _ in arrivals if status == "DELIVERED"}

    await wait_until(are_told, seconds, f"{len(ours)} messages are reported")


async def delays(bench: Bench, report: Report, path: str = "/callbacks") -> list[float]:
    """Of each message the seconds from when it was due to when its DELIVERED arrived, sorted."""
    arrived: dict[str, float] = {}
    for message_id, status, at in await bench.world.receiver.ask("arrivals", path=path):
        if status == "DELIVERED":
            arrived.setdefault(message_id, at)
    return sorted(arrived[sent.message_id] - sent.due_at for sent in report.sent if sent.message_id in arrived)


def percentile(ordered: list[float], share: float) -> float:
    """The value that this share of the ordered values does not exceed."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each name over several runs."""
    return {name: median(run[name] for run in runs) for name in runs[0]}
