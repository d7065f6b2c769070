"""Calls that succeed and still raise a timeout: a few in a hundred, of every kind, in every service."""

import asyncio
import os
import shlex
import sys
from pathlib import Path

import pytest
from tests.faults.conftest import Start
from tests.faults.load import EVERYDAY, Kind, Load
from tests.faults.system import SERVICES, until_confirmed

pytestmark = [pytest.mark.fault, pytest.mark.slow]
INJECTED = Path(__file__).parent / "injected"
SEED = 8
#: The flows of the vertical that count no request: a callback may come twice.
FLOWS = ("conversations", "failover", "inbound", "sending", "sms", "sms_doubt", "sms_parts", "telegram")


async def test_a_call_that_succeeds_and_still_times_out_is_not_done_twice(start: Start) -> None:
    print(f"seed {SEED}", flush=True)
    any_end = tuple(Kind(to=kind.to, weight=kind.weight, marks=kind.marks) for kind in EVERYDAY)

    async with start(*_doubts(SERVICES, SHARE=0.05, SEED=SEED), inject=INJECTED) as system:
        async with Load(system.installed.running, per_second=25, kinds=any_end, confirm_seconds=180) as load:
            await until_confirmed(load.sent, 600, seconds=240)
        await system.rest(seconds=150, idle_seconds=4)

        await system.judge(load.sent, load.said, at_least=600)
        assert not load.unconfirmed


async def test_every_story_of_the_vertical_ends_the_same_in_doubt_about_database_and_broker(
    postgres_dsn: str, kafka: str
) -> None:
    """Behind the API, where calls are done again until they are known to be done.

    A provider's answer that is lost changes a story, rightly, and the API tells its client to ask again: the ledger
    judges those.
    """
    services = ("router", "channel-adapter", "callback-delivery")
    options = _doubts(services, SHARE=0.02, SEED=SEED, CALLS="database,broker")
    options += [part for service in services for part in ("--env", f"{service}:PYTHONPATH={INJECTED}")]
    environment = {
        "SWITCHBOARD_POSTGRES_DSN": postgres_dsn,
        "SWITCHBOARD_KAFKA_BOOTSTRAP": kafka,
        "SWITCHBOARD_FLOW_OPTIONS": shlex.join(options),
    }
    flows = [f"tests/flow/vertical/test_{name}.py" for name in FLOWS]

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pytest", "-q", *flows, cwd=Path(__file__).parents[2],
        env=os.environ | environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()

    assert process.returncode == 0, said.decode()


def _doubts(services: tuple[str, ...], **settings: object) -> list[str]:
    return [
        part
        for service in services
        for name, value in settings.items()
        for part in ("--env", f"{service}:SWITCHBOARD_FAULTS_{name}={value}")
    ]
