"""A day in the life of an endpoint that is dead, as its owner sees it over HTTP."""

from base64 import b64encode
from datetime import timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook as Standard
from tests.faults.conftest import Start
from tests.faults.system import System
from tests.faults.webhook import behave, listen
from tests.flow.installed import new_number

from switchboard.testing import wait_until
from switchboard_simulator.journal import read_lines

pytestmark = pytest.mark.fault

#: More tries than a day has.
_MOST_TRIES = 40


@pytest.mark.parametrize("kept_days", [7, pytest.param(0, marks=pytest.mark.slow)])
async def test_a_day_of_a_dead_endpoint_is_16_or_17_tries_and_one_expired_callback_that_may_be_sent_again(
    start: Start, kept_days: int
) -> None:
    async with start() as system:
        inside, app_id = system.installed, system.installed.running.app_id
        policy = {"dispatch_retention_policy": {"retention_type": "MESSAGE_EXPIRE_POLICY", "ttl_days": kept_days}}
        changed = await inside.call("PATCH", f"/apps/{app_id}", policy)
        assert changed.status == 200, changed.content
        webhook_id = await listen(system, "dead", triggers=["MESSAGE_SUBMIT"])
        await behave(system, "dead", mode="answer", status=503, body="down for maintenance")

        message_id = await inside.send("The ferry leaves at noon.", ("SMS", new_number()))
        callback = await _expired(system, webhook_id)

        assert callback["about"] == message_id
        assert callback["attempts"] in (16, 17)
        assert len(_posted(system, message_id)) == callback["attempts"]
        assert (callback["last_status"], callback["last_answer"]) == (503, "down for maintenance")
        assert callback["has_content"] is bool(kept_days)
        await behave(system, "dead")
        ordered = await inside.call("POST", f"/callbacks/{callback['id']}:redeliver")
        if not kept_days:
            assert (ordered.status, ordered.json["error"]["code"]) == (410, 410)
            return
        assert ordered.status == 200, ordered.content
        await wait_until(lambda: _is_delivered(system, callback["id"]), 30, "it is delivered after all")
        last = _posted(system, message_id)[-1]
        Standard(_spelled("secret of dead")).verify(last["body"], last["headers"])
        assert last["headers"]["webhook-id"] == callback["id"]
        assert last["headers"]["switchboard-replay"] == "true"


async def _expired(system: System, webhook_id: str) -> Any:
    """Live through the day, from try to try, until the one callback of the webhook is listed as expired."""
    app_id = system.installed.running.app_id

    async def listed() -> list[Any]:
        answer = await system.installed.call("GET", f"/apps/{app_id}/callbacks?webhook_id={webhook_id}")
        found: list[Any] = answer.json["callbacks"]
        return found

    await wait_until(listed, 30, "its first try is recorded")
    for tried in range(1, _MOST_TRIES):
        await _advance_to_next_try(system, f"endpoint:{webhook_id}")

        async def is_tried(tried: int = tried) -> bool:
            [callback] = await listed()
            return bool(callback["state"] != "waiting" or callback["attempts"] > tried)

        await wait_until(is_tried, 30, f"another try after {tried}")
        [callback] = await listed()
        if callback["state"] != "waiting":
            assert callback["state"] == "expired"
            return callback
    raise AssertionError("no end of tries")


async def _advance_to_next_try(system: System, endpoint: str) -> None:
    async with system.database() as connection:
        wait: timedelta = await connection.fetchval(
            "SELECT greatest(stream.due_at, lane.probe_at, switchboard.now()) - switchboard.now()"
            " FROM switchboard.callback_streams AS stream JOIN switchboard.lanes AS lane ON lane.id = stream.endpoint"
            " WHERE stream.endpoint = $1",
            endpoint,
        )
        await connection.execute("UPDATE switchboard.clock SET shift = shift + $1 + interval '1 millisecond'", wait)


async def _is_delivered(system: System, callback_id: str) -> bool:
    answer = await system.installed.call("GET", f"/callbacks/{callback_id}")
    return bool(answer.json["state"] == "delivered")


def _posted(system: System, message_id: str) -> list[Any]:
    """What came to the dead endpoint about a message."""
    lines = read_lines(system.home.callbacks_log)
    return [line for line in lines if line["receiver"] == "dead" and message_id in line["body"]]


def _spelled(secret: str) -> str:
    """As the libraries of Standard Webhooks take it."""
    return "whsec_" + b64encode(secret.encode()).decode()
