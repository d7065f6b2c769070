"""The control API: what it refuses, and the events it tells as they happen."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.routing import Route

from switchboard_simulator.control import Control
from switchboard_simulator.faults import FaultKind
from switchboard_simulator.feed import CallbackReceived, Feed, Missed
from switchboard_simulator.settings import SimulatorSettings

MISTAKES: dict[str, tuple[str, str, Any, int]] = {
    "no JSON": ("POST", "faults", b"{", 400),
    "a field too many": ("POST", "faults", {"channel": "TELEGRAM", "kind": "slow", "speed": 1}, 400),
    "a field missing": ("POST", "faults", {"kind": "slow"}, 400),
    "an unknown kind": ("POST", "faults", {"channel": "TELEGRAM", "kind": "sulk"}, 400),
    "an unknown channel": ("POST", "faults", {"channel": "PIGEON", "kind": "slow"}, 400),
    "a fault that is not there": ("DELETE", "faults/01K", None, 404),
    "a chat that is no number": ("POST", "inbound", {"channel": "TELEGRAM", "from": "Ann", "text": "x"}, 400),
    "a bot that is not there": ("POST", "inbound", {"channel": "TELEGRAM", "from": "7", "to": "0", "text": "x"}, 409),
    "nothing to say": ("POST", "inbound", {"channel": "TELEGRAM", "from": "7", "to": "own"}, 409),
    "a file that is no base64": (
        "POST",
        "inbound",
        {"channel": "TELEGRAM", "from": "7", "to": "own", "media": {"kind": "photo", "content_base64": "*"}},
        400,
    ),
    "a number to write to is missing": ("POST", "inbound", {"channel": "SMS", "from": "46701", "text": "x"}, 400),
    "nobody is bound": ("POST", "inbound", {"channel": "SMS", "from": "46701", "to": "46", "text": "x"}, 409),
    "a button under nothing": (
        "POST", "press", {"channel": "TELEGRAM", "recipient": "7", "message_id": "1", "button": "A"}, 409,
    ),
    "a receipt for nothing": ("POST", "receipts", {"provider_id": "ff"}, 404),
    "a receipt of no kind": ("POST", "receipts", {"provider_id": "ff", "state": "LOST"}, 400),
    "a phone nobody wrote to": ("GET", "phones/TELEGRAM/7", None, 404),
    "a receiver nobody wrote to": ("GET", "receivers/nobody", None, 404),
    "a limit that is no number": ("GET", "phones?limit=many", None, 400),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
async def test_a_mistake_is_told_and_changes_nothing(simulator: Any, case: str) -> None:
    method, path, body, status = MISTAKES[case]
    await simulator.bot("getMe")
    if isinstance(body, dict) and body.get("to") == "own":
        body = {**body, "to": str(simulator.bot_id)}
    content = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
    headers = {"content-type": "application/json"}

    answer = await simulator.request(method, f"/control/{path}", content, headers)

    assert answer.status == status, answer.content
    assert answer.json["error"]
    assert len(simulator.world.phones) == 0
    assert list(simulator.world.faults) == []


async def test_a_foreign_page_in_a_browser_can_do_nothing(simulator: Any) -> None:
    headers = {"content-type": "application/json", "sec-fetch-site": "cross-site"}

    answer = await simulator.request("POST", "/control/reset", b"{}", headers)

    assert answer.status == 403


async def test_a_form_of_a_foreign_page_is_no_order(simulator: Any) -> None:
    answer = await simulator.request("POST", "/control/faults", b"{}", {"content-type": "text/plain"})

    assert answer.status == 400


async def test_a_reset_forgets_all_but_bots_and_logs(simulator: Any) -> None:
    await simulator.bot("setWebhook", url="https://a.example")
    await simulator.send(7)
    await simulator.fault("slow")
    await simulator.request("POST", "/receiver/app", b"{}")

    await simulator.control("POST", "reset")

    state = (await simulator.control("GET", "state")).json
    assert (state["phones"], state["faults"], state["receivers"]) == (0, 0, {})
    assert (await simulator.bot("getWebhookInfo")).json["result"]["url"] == "https://a.example"
    assert (len(simulator.submissions()), len(simulator.callbacks())) == (1, 1)


async def test_what_happens_is_told_as_it_happens(simulated: Any) -> None:
    async with simulated() as simulator:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.world.ports["http"])
        writer.write(b"GET /control/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b": nothing new")

        await simulator.send(7, "Hello")
        await simulator.request("POST", "/receiver/app", b"{}")

        await reader.readuntil(b"event: PhoneChanged\ndata: ")
        told = msgspec.json.decode(await reader.readuntil(b"\n"))
        await reader.readuntil(b"event: CallbackReceived\ndata: ")
        assert told["message"]["text"] == "Hello"
        writer.close()


async def test_a_watcher_that_does_not_keep_up_is_told_to_look_again() -> None:
    feed = Feed(depth=2)
    watch = feed.watch()
    assert await anext(watch) is None

    for _ in range(3):
        feed.publish(CallbackReceived(callback=None))  # type: ignore[arg-type]
    first = await anext(watch)
    feed.close()

    assert isinstance(first, Missed)
    assert [fact async for fact in watch] == []
    assert not feed.is_watched


async def test_the_reference_page_names_every_path_and_every_magic_recipient(simulator: Any) -> None:
    text = (Path(__file__).parents[3] / "docs" / "reference" / "simulator.md").read_text()

    for route in Control(simulator.world).routes():
        assert isinstance(route, Route)
        assert f"{next(iter((route.methods or set()) - {'HEAD'}))} {route.path}`" in text
    for row in simulator.world.magic_recipients():
        assert f"| {row['ending']} | {row['does']} |" in text
    for kind in FaultKind:
        assert f"`{kind}`" in text
    for name, setting in SimulatorSettings.model_fields.items():
        assert f"| `SWITCHBOARD_{name.upper()}` | {setting.description} |" in text


async def test_health_is_told_as_other_services_tell_it(simulator: Any) -> None:
    for path in ("/health/live", "/health/ready"):
        answer = await simulator.request("GET", path)
        assert (answer.status, answer.json) == (200, {"failing": []})
    assert b"python_info" in (await simulator.request("GET", "/metrics")).content


async def test_an_sms_fault_set_here_meets_the_smsc(simulator: Any) -> None:
    await simulator.fault("reject", channel="SMS", recipient="46701", code=0x66)

    fault = simulator.world.faults.take("SMS", "46701", "submit_sm")

    assert fault is not None
    assert fault.code == 0x66
