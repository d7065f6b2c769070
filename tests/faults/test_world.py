"""The world outside at its worst: a webhook that is down and comes back, providers that take and say nothing."""

from typing import Any

import pytest
from tests.faults.conftest import Start
from tests.faults.load import EVERYDAY, SUBMITTED, UNANSWERED, Kind, Load, sms_ending, telegram_ending
from tests.faults.system import System, until_confirmed

pytestmark = [pytest.mark.fault, pytest.mark.slow]


async def test_a_webhook_down_and_back_is_told_everything_in_order(start: Start) -> None:
    async with start() as system:
        async with Load(system.installed.running, per_second=25) as load:
            await until_confirmed(load.sent, 50)
            for behaviour in ({"mode": "cut"}, {"mode": "answer", "status": 503}, {"mode": "hang"}):
                await _receiver(system, behaviour)
                await until_confirmed(load.sent, 150)
                await _receiver(system, {"mode": "answer", "status": 200})
                await until_confirmed(load.sent, 50)
        await system.rest(seconds=120, idle_seconds=6)

        await system.judge(load.sent, load.said, at_least=650)


async def test_what_providers_take_without_an_answer_is_unknown_and_never_sent_again(start: Start) -> None:
    cut = Kind(to=sms_ending("9913"), weight=2, recipients=90_000)
    not_taken = Kind(to=sms_ending("9912"), weight=2, recipients=90_000)
    late = Kind(to=sms_ending("9927"), weight=2, recipients=90_000)
    early = Kind(to=sms_ending("9916"), weight=4)
    twice = Kind(to=sms_ending("9915"), weight=4)
    chats = [
        Kind(to=telegram_ending(ending), weight=2, recipients=9_000)
        for ending in ("9910", "9912", "9913", "9927", "9928")
    ]
    throttled = Kind(to=telegram_ending("9907"), weight=2, may_end=SUBMITTED)
    kinds = (*EVERYDAY, UNANSWERED, cut, not_taken, late, early, twice, *chats, throttled)
    async with start() as system:
        any_end = tuple(Kind(to=kind.to, weight=kind.weight, marks=kind.marks, recipients=kind.recipients)
                        for kind in kinds)  # fmt: skip
        # What the SMSC answers after 2 s then comes too late.
        await system.lead_smsc(system.home.ports().smpp, response_timeout_seconds=1.0)
        async with Load(system.installed.running, per_second=25, kinds=any_end) as load:
            await until_confirmed(load.sent, 500, seconds=120)
        # Longer than the Bot API's adapter waits for an answer.
        await system.rest(seconds=180, idle_seconds=17)

        await system.judge(load.sent, load.said, at_least=500)


async def _receiver(system: System, behaviour: dict[str, Any]) -> None:
    answer = await system.installed.simulator("PUT", "/receivers/app", behaviour=behaviour)
    assert answer.status == 200, answer.content
