"""A service is killed under load: nothing is lost, and how long nothing came."""

from __future__ import annotations

import asyncio
import os
import signal
from itertools import pairwise
from typing import Final

from tests.benchmarks.bench import Bench, Figure, Result
from tests.benchmarks.outside.driver import Report
from tests.benchmarks.product import Load

_SERVICES: Final = ("router", "channel-adapter", "callback-delivery", "ingress")
_RATE: Final = 50.0
_SECONDS: Final = 8.0
_KILLED_AFTER: Final = 2.0


async def recovery(bench: Bench) -> Result:
    """kill -9 of each service in turn; a message that stood at a killed adapter is *unknown* and told so."""
    figures = []
    async with bench.product() as running:
        for service in _SERVICES:
            await bench.world.reset()
            messages = int(_RATE * _SECONDS)
            sending = asyncio.create_task(running.send(Load(messages=messages, rate=_RATE, connections=64, tries=200)))
            # The moment of the kill is part of the experiment.
            await asyncio.sleep(_KILLED_AFTER)
            os.kill(running.running.pids[service], signal.SIGKILL)
            report = await sending
            sent = {each.message_id for each in report.sent}
            lost = len(sent - await _ended(bench, sent))
            gap = _longest_silence(
                [at for _, _, at in await bench.world.receiver.ask("arrivals", path="/callbacks")], report
            )
            figures.append(Figure(f"{service} killed: longest time without a callback", gap, "s", "≤ 2", gap <= 2))
            figures.append(Figure(f"{service} killed: lost", lost, "messages", "0", lost == 0))
    return Result("recovery", figures, {"rate": _RATE})


def _longest_silence(arrivals: list[float], report: Report) -> float:
    """The longest time without a callback while messages were sent.

    What was *unknown* when an adapter died is told half a minute later, when nothing else comes any more.
    """
    moments = [report.began_at, *sorted(at for at in arrivals if at < report.ended_at), report.ended_at]
    return max(later - earlier for earlier, later in pairwise(moments))


async def _ended(bench: Bench, sent: set[str], seconds: float = 90.0) -> set[str]:
    """The messages that came to an end the app was told of, as soon as all are, or after so long."""
    deadline = asyncio.get_running_loop().time() + seconds
    ended: set[str] = set()
    while not sent <= ended and asyncio.get_running_loop().time() < deadline:
        arrivals = await bench.world.receiver.ask("arrivals", path="/callbacks")
        ended = {message_id for message_id, status, _ in arrivals if status in ("DELIVERED", "FAILED")}
        await asyncio.sleep(0.2)
    return ended
