"""`python -m tests.benchmarks`: runs the parts, prints a table, and writes everything measured as JSON where asked."""

from __future__ import annotations

import argparse
import asyncio
import platform
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
from tests.benchmarks.bench import FULL, QUICK, Bench, Result, Scale
from tests.benchmarks.parts.backlog import backlog
from tests.benchmarks.parts.callbacks import callback_leg, endpoints, hanging, three, waiting
from tests.benchmarks.parts.channels import dead_channel, failover
from tests.benchmarks.parts.cost import cost
from tests.benchmarks.parts.latency import latency
from tests.benchmarks.parts.pacing import pacing
from tests.benchmarks.parts.priority import priority
from tests.benchmarks.parts.recovery import recovery
from tests.benchmarks.parts.tracing import tracing
from tests.benchmarks.product import machine, world
from tests.benchmarks.servers import BenchServers, bench_servers

from switchboard.embedded import default_data_folder

PARTS: Final[dict[str, Callable[[Bench], Awaitable[Result]]]] = {
    "cost": cost,
    "latency": latency,
    "backlog": backlog,
    "tracing": tracing,
    "recovery": recovery,
    "callback-leg": callback_leg,
    "endpoints": endpoints,
    "hanging": hanging,
    "three": three,
    "waiting": waiting,
    "pacing": pacing,
    "priority": priority,
    "failover": failover,
    "dead-channel": dead_channel,
}
_LIBRARIES: Final = ("aiokafka", "asyncpg", "msgspec", "pyreqwest", "uvicorn", "uvloop")


def main() -> int:
    """Returns 0 if every part was measured, whatever the figures."""
    asked = _arguments()
    # Told to stop, it takes everything down, as with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scale = QUICK if asked.quick else FULL
    if asked.pairs:
        scale = msgspec.structs.replace(scale, pairs=asked.pairs)
    if asked.backlog:
        scale = msgspec.structs.replace(scale, backlogs=(scale.backlogs[0], asked.backlog))
    # Not a temporary folder: the database runs as another user, who must be able to reach it.
    folder = default_data_folder() / "benchmarks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    try:
        with bench_servers(folder) as servers:
            results, failures = asyncio.run(_measure(folder, servers, scale, asked.only or list(PARTS)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    facts = {
        **machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "seconds": round(time.monotonic() - began),
    }
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode({"machine": facts, "results": results})))
    print(f"\n{facts['cpus']} x {facts['model']}, Python {facts['python']}, {facts['seconds']} s")
    return 1 if failures else 0


async def _measure(folder: Path, servers: BenchServers, scale: Scale, names: list[str]) -> tuple[list[Result], int]:
    results: list[Result] = []
    failures = 0
    half_rate = 0.0
    async with world() as outside:
        for name in names:
            bench = Bench(folder, servers, outside, scale, half_rate)
            try:
                result = await PARTS[name](bench)
            except Exception as error:  # noqa: BLE001  # one part that cannot be measured leaves the others
                failures += 1
                print(f"\n{name}: not measured: {type(error).__name__}: {error}", flush=True)
                continue
            results.append(result)
            _print(result)
            if name == "cost":
                half_rate = next(f.value for f in result.figures if f.what.endswith("saturated")) / 2
    return results, failures


def _print(result: Result) -> None:
    print(f"\n{result.part}")
    for figure in result.figures:
        verdict = "" if figure.met is None else f"   bar {figure.bar}: {'met' if figure.met else 'NOT met'}"
        print(f"  {figure.what:<58} {figure.value:>10.2f} {figure.unit}{verdict}")
    for group in ("ours", "ordinary", "bare"):
        if group in result.details:
            shares = sorted(result.details[group].items(), key=lambda item: -item[1])
            print(f"  {group}: " + ", ".join(f"{name} {value:.0f}" for name, value in shares))
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, some minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts alone")
    parser.add_argument("--pairs", type=int, default=0, help="runs of each, interleaved (5)")
    parser.add_argument("--backlog", type=int, default=0, help="messages in the large backlog (100,000)")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
