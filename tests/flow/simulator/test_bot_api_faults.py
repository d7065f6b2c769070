"""What goes wrong at the Bot API when it is asked to, or when a magic chat is written to."""

import asyncio
from typing import Any

import pytest
from pyreqwest.exceptions import PyreqwestError

from switchboard.testing import wait_until
from switchboard_simulator.telegram.magic import MAGIC


async def test_a_fault_meets_one_request_and_is_used_up(simulator: Any) -> None:
    await simulator.fault("reject", code=403, description="Forbidden: bot was kicked from the group chat")

    first, second = await simulator.send(7, "A"), await simulator.send(7, "B")

    assert (first.status, second.status) == (403, 200)
    assert first.json["description"] == "Forbidden: bot was kicked from the group chat"
    assert simulator.shown(7) == ["B"]
    assert (await simulator.control("GET", "faults")).json == {"faults": []}


async def test_a_fault_skips_and_counts_as_told(simulator: Any) -> None:
    await simulator.fault("server_error", code=502, skip=1, count=2)

    statuses = [(await simulator.send(7)).status for _ in range(4)]

    assert statuses == [200, 502, 502, 200]


async def test_a_fault_meets_only_its_recipient_and_operation(simulator: Any) -> None:
    await simulator.fault("server_error", recipient="7", operation="sendMessage", count=None)

    assert (await simulator.send(8)).status == 200
    assert (await simulator.bot("sendLocation", chat_id=7, latitude=1, longitude=1)).status == 200
    assert (await simulator.send(7)).status == 500


async def test_a_fault_for_all_that_sends_leaves_other_methods_alone(simulator: Any) -> None:
    await simulator.fault("server_error", count=None)

    assert (await simulator.bot("getMe")).status == 200
    assert (await simulator.bot("sendChatAction", chat_id=7, action="typing")).status == 200


async def test_a_fault_may_name_a_method_that_does_not_send(simulator: Any) -> None:
    await simulator.fault("server_error", operation="setWebhook")

    assert (await simulator.bot("setWebhook", url="https://a.example")).status == 500


async def test_throttling_says_when_to_come_back(simulator: Any) -> None:
    await simulator.fault("throttle", retry_after_seconds=7)

    answer = await simulator.send(7)

    assert answer.status == 429
    assert answer.headers["retry-after"] == "7"
    assert answer.json["parameters"] == {"retry_after": 7}
    assert answer.json["description"] == "Too Many Requests: retry after 7"


@pytest.mark.parametrize(
    ("kind", "accepted", "answer"),
    [
        ("timeout_before_accept", False, "none"),
        ("timeout_after_accept", True, "none"),
        ("cut_before_accept", False, "cut"),
        ("cut_after_accept", True, "cut"),
    ],
)
async def test_a_call_without_an_answer_is_on_record_as_what_it_was(
    simulated: Any, kind: str, accepted: bool, answer: str
) -> None:
    async with simulated(hold_seconds=0.05) as simulator:
        await simulator.fault(kind)

        with pytest.raises(PyreqwestError):
            await simulator.send(7, "Hello")

        (line,) = simulator.submissions()
        assert (line["accepted"], line["answer"], line["fault"]) == (accepted, answer, kind)
        assert simulator.shown(7) == (["Hello"] if accepted else [])


async def test_a_call_that_hangs_ends_when_the_simulator_stops(simulated: Any) -> None:
    async with simulated() as simulator:
        await simulator.fault("timeout_after_accept")
        hanging = asyncio.create_task(simulator.send(7))
        await wait_until(lambda: bool(simulator.submissions()))
        assert not hanging.done()

    with pytest.raises(PyreqwestError):
        await hanging


async def test_a_slow_answer_is_the_ordinary_one(simulator: Any) -> None:
    await simulator.fault("slow", delay_seconds=0.01)

    assert (await simulator.send(7, "Hello")).json["result"]["text"] == "Hello"


async def test_a_proxys_page_instead_of_an_answer_hides_an_accepted_message(simulator: Any) -> None:
    await simulator.fault("garbage")

    answer = await simulator.send(7, "Hello")

    assert answer.status == 200
    assert answer.content.startswith(b"<!doctype html>")
    assert simulator.shown(7) == ["Hello"]


@pytest.mark.parametrize("kind", ["timeout_after_accept", "cut_after_accept", "garbage"])
async def test_what_is_not_accepted_is_refused_whatever_would_follow_acceptance(simulator: Any, kind: str) -> None:
    await simulator.fault(kind)

    answer = await simulator.send(7, "")

    assert answer.json["description"] == "Bad Request: message text is empty"
    assert simulator.submissions()[0]["accepted"] is False


async def test_silence_accepts_and_shows_nothing(simulator: Any) -> None:
    await simulator.fault("silence")

    answer = await simulator.send(7)

    assert answer.json["ok"] is True
    assert simulator.shown(7) == []
    assert simulator.submissions()[0]["accepted"] is True


REFUSING = [magic for magic in MAGIC if magic.fault.kind in ("reject", "server_error", "throttle")]


@pytest.mark.parametrize("magic", REFUSING, ids=[magic.ending for magic in REFUSING])
async def test_a_magic_chat_refuses_as_its_table_says(simulator: Any, magic: Any) -> None:
    chat = int("700000" + magic.ending)

    first, again, other = [await simulator.send(chat, text) for text in ("A", "A", "B")]

    usual = {"throttle": 429, "server_error": 500, "reject": 400}[magic.fault.kind]
    refused = magic.fault.code or usual
    assert first.status == other.status == refused
    assert again.status == (200 if magic.first_only else refused)


async def test_a_group_that_moved_names_its_new_id(simulator: Any) -> None:
    answer = await simulator.send(-100_9944)

    assert answer.json["parameters"] == {"migrate_to_chat_id": -100_99440}


async def test_a_rule_wins_over_magic(simulator: Any) -> None:
    await simulator.fault("slow", recipient="7009929", count=1)

    assert (await simulator.send(7009929)).status == 200
    assert (await simulator.send(7009929)).status == 403


async def test_every_magic_ending_is_told(simulator: Any) -> None:
    told = (await simulator.control("GET", "magic")).json["magic"]

    endings = {row["ending"] for row in told if row["channel"] == "TELEGRAM"}
    assert endings == {magic.ending for magic in MAGIC}
    assert len(endings) == len(MAGIC)
