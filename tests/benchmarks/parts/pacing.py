"""Pacing: no second holds a slot too many, and hardly one is wasted."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from tests.benchmarks.bench import Bench, Figure, Result
from tests.benchmarks.product import UNPACED, Load

_RATE: Final = 100
_SECONDS: Final = 12
#: An attempt has so long from its slot to its claim (DESIGN 5).
_SEND_WINDOW: Final = timedelta(seconds=30)


async def pacing(bench: Bench) -> Result:
    """A flood into a lane of 100/s; slots are what the database's clock says they were."""
    messages = _RATE * _SECONDS
    async with bench.product() as running:
        await running.set_rate(_RATE)
        await bench.world.reset()
        report = await running.send(Load(messages=messages))
        await running.told(messages)
        await running.check(report)
        async with running.database() as connection:
            rows = await connection.fetch(
                "SELECT send_before FROM attempts WHERE message_id = ANY ($1) ORDER BY send_before",
                [sent.message_id for sent in report.sent],
            )
        await running.set_rate(UNPACED)
    slots = [(row["send_before"] - _SEND_WINDOW).timestamp() for row in rows]
    most = _most_within(slots, 1.0)
    used = _most_within(slots, 10.0) / (10 * _RATE)
    return Result(
        "pacing",
        [
            Figure("slots in any 1 s, of a limit of 100", most, "slots", "≤ 100", most <= _RATE),
            Figure("of the limit used over 10 s", 100 * used, "%", "≥ 99", used >= 0.99),
        ],
        {"messages": messages},
    )


def _most_within(moments: list[float], seconds: float) -> int:
    """The largest number of moments in any half-open window of this length."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
