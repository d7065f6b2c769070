"""Events and questions on a real database and broker: an event is sent once, a question is always answered."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from switchboard.bus import Outgoing
from switchboard.channel.contract import Account, Capability, SendResult
from switchboard.channel.outcome import Accepted, Unknown
from switchboard.content import AppEvent
from switchboard.http.client import HttpClient
from switchboard.identity import ChannelIdentity
from switchboard.ids import MessageId, mint, time_of
from switchboard.reason import ReasonCode
from switchboard.records import (
    AskCapability,
    CapabilityAnswered,
    DispatchEvent,
    EventFinished,
    ProcessingMode,
)
from switchboard.status import Status
from switchboard.store import events
from switchboard.store.events import StoredEvent
from switchboard.testing import wait_until
from switchboard.topics import ATTEMPTS, DISPATCH, INBOUND

from .conftest import PROJECT, TELEGRAM, ScriptedChannel, Start, World

CHAT = ChannelIdentity(TELEGRAM, "777000")
TYPING = msgspec.json.decode(b'{"composing_event":{}}', type=AppEvent)


class LivelyChannel(ScriptedChannel):
    """A channel that carries events and knows whom it reaches."""

    def __init__(self, does: Callable[[], Any]) -> None:
        super().__init__()
        self.does = does
        self.acted: list[AppEvent] = []

    async def send_event(
        self, event: AppEvent, identity: ChannelIdentity, account: Account, http: HttpClient
    ) -> SendResult:
        self.acted.append(event)
        return SendResult(self.does())

    async def capability(self, identity: ChannelIdentity, account: Account, http: HttpClient) -> Capability:
        told: Capability = self.does()
        return told


async def planned(world: World) -> DispatchEvent:
    now = await world.pool.fetchval("SELECT switchboard.now()")
    order = DispatchEvent(MessageId(mint()), world.app_id, world.account, CHAT, TYPING, now + timedelta(seconds=30))
    event = StoredEvent(
        id=order.event_id, project_id=PROJECT, app_id=world.app_id, mode=ProcessingMode.DISPATCH,
        accepted_at=time_of(order.event_id), identity=CHAT, kind="app_event", body=b"{}", body_until=None,
        state="planned", status=Status.QUEUED, due_at=order.send_before,
    )  # fmt: skip
    async with world.pool.acquire() as connection:
        await events.insert(connection, [event])
    return order


async def publish(world: World, *orders: DispatchEvent | AskCapability) -> None:
    await world.producer.publish(
        [
            Outgoing(DISPATCH.name(world.prefix, TELEGRAM), b"k", DISPATCH.encode(order), DISPATCH.headers(order))
            for order in orders
        ]
    )


async def finished(world: World) -> list[EventFinished]:
    return [record for record in await world.published(ATTEMPTS) if isinstance(record, EventFinished)]


async def test_an_event_is_sent_once_however_often_its_order_comes(world: World, start: Start) -> None:
    channel = LivelyChannel(lambda: Accepted(()))
    await start(channel)
    order = await planned(world)
    last = await planned(world)
    await publish(world, order, order, last)
    await wait_until(lambda: _count(world, 2))

    assert channel.acted == [TYPING, TYPING]
    assert {record.event_id for record in await finished(world)} == {order.event_id, last.event_id}
    assert all(record.outcome == Accepted(()) for record in await finished(world))


async def _count(world: World, number: int) -> bool:
    return len(await finished(world)) >= number


async def test_an_adapter_that_raises_leaves_the_event_in_doubt(world: World, start: Start) -> None:
    def breaks() -> Any:
        raise RuntimeError("a bug")

    await start(LivelyChannel(breaks))
    await publish(world, await planned(world))
    await wait_until(lambda: _count(world, 1))

    [record] = await finished(world)
    assert isinstance(record.outcome, Unknown)
    assert record.outcome.reason.code is ReasonCode.INTERNAL_ERROR


async def test_an_overdue_event_is_not_sent(world: World, start: Start) -> None:
    channel = LivelyChannel(lambda: Accepted(()))
    await start(channel)
    overdue, last = await planned(world), await planned(world)
    await world.pool.execute("UPDATE events SET due_at = switchboard.now() WHERE id = $1", overdue.event_id)
    await publish(world, overdue, last)
    await wait_until(lambda: _count(world, 1))

    assert [record.event_id for record in await finished(world)] == [last.event_id]


def ask(world: World) -> AskCapability:
    query_id = MessageId(mint())
    return AskCapability(query_id, PROJECT, world.app_id, world.account, CHAT, "ask-1", time_of(query_id))


async def answers(world: World) -> list[CapabilityAnswered]:
    return [record for record in await world.published(INBOUND) if isinstance(record, CapabilityAnswered)]


@pytest.mark.parametrize("lively", [True, False])
async def test_a_question_is_answered(world: World, start: Start, lively: bool) -> None:
    await start(LivelyChannel(lambda: Capability("CAPABILITY_PARTIAL", ("CARD",))) if lively else ScriptedChannel())
    await publish(world, order := ask(world))

    [answer] = await wait_until(lambda: answers(world))
    assert (answer.query_id, answer.request_id, answer.identity) == (order.query_id, "ask-1", CHAT)
    assert answer.status == ("CAPABILITY_PARTIAL" if lively else "CAPABILITY_UNKNOWN")
    assert answer.features == (("CARD",) if lively else ())


async def test_a_question_of_an_account_that_is_gone_is_answered_too(world: World, start: Start) -> None:
    await start(LivelyChannel(lambda: Capability("CAPABILITY_FULL")))
    await publish(world, msgspec.structs.replace(ask(world), app_id="01K098EK8NWJ47TAN9ZT24MNPZ"))

    [answer] = await wait_until(lambda: answers(world))
    assert answer.status == "CAPABILITY_UNKNOWN"
    assert answer.reason is not None
