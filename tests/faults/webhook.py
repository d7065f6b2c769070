"""Webhooks that a fault test makes for itself: how they behave, and what came to them."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from tests.faults.evidence import Evidence, event_of
from tests.faults.system import System

from switchboard.trigger import Trigger
from switchboard_standalone.development import RECEIVER

EVERY: Final = [trigger.value for trigger in Trigger if trigger is not Trigger.RECORD_NOTIFICATION]


async def behave(system: System, receiver: str = RECEIVER, **behaviour: Any) -> None:
    """Let a receiver treat callbacks this way from now on; without words: as it should."""
    answer = await system.installed.simulator("PUT", f"/receivers/{receiver}", behaviour=behaviour)
    assert answer.status == 200, answer.content


async def listen(system: System, receiver: str, **fields: Any) -> str:
    """Make one more webhook of the development app, at a receiver that knows its secret. Returns its id.

    From here on every message is told of there, too: the router is a new one, which knows the webhook.
    """
    running, secret = system.installed.running, f"secret of {receiver}"
    await system.installed.simulator("PUT", f"/receivers/{receiver}", secret=secret)
    target = f"{running.simulator_url}/receiver/{receiver}"
    body = {"app_id": running.app_id, "target": target, "triggers": EVERY, "secret": secret, **fields}
    answer = await system.installed.call("POST", "/webhooks", body)
    assert answer.status == 200, answer.content
    await system.kill("router")
    return str(answer.json["id"])


def repeated(evidence: Evidence) -> int:
    """How many callbacks were taken once more after they had been taken."""
    taken = Counter(event_of(line) for line in evidence.callbacks if line.status is not None and line.status < 300)
    return taken.total() - len(taken)
