"""A connection channel whole: SMPP sessions under leases, against the simulator's SMSC."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

import switchboard_channels
from switchboard.channel import registry
from switchboard.channel.outcome import Accepted, FailedForNow, PartlyAccepted, Rejected, Unknown
from switchboard.configuration import App, Credential
from switchboard.configuration.credential import StaticBearer
from switchboard.content import AppMessage, TextMessage
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey, AppId, mint
from switchboard.records import DispatchMessage
from switchboard.status import Status
from switchboard.testing import wait_until
from switchboard_simulator.journal import Journal
from switchboard_simulator.phones import Phones
from switchboard_simulator.smsc.centre import Smsc, SmscSettings

from .conftest import PROJECT, Start, World

SMS = ChannelName("SMS")
OURS = "46100200300"


class Sms:
    """The SMSC and what it takes to send over it."""

    def __init__(self, world: World, smsc: Smsc, account: AccountKey, app_id: AppId) -> None:
        self.world, self.smsc, self.account, self.app_id = world, smsc, account, app_id

    async def send(self, number: str, text: str = "The ferry leaves at noon.") -> DispatchMessage:
        identity = ChannelIdentity(SMS, number)
        order = await self.world.plan(identity=identity, account=self.account, app_id=self.app_id)
        order = msgspec.structs.replace(order, message=AppMessage(text_message=TextMessage(text)))
        await self.world.dispatch(order)
        return order

    async def outcome(self, order: DispatchMessage) -> Any:
        return (await wait_until(lambda: self.world.outcomes(order)))[0]


@pytest.fixture
async def sms(world: World, start: Start) -> AsyncIterator[Sms]:
    smsc = Smsc(SmscSettings(), Phones(), Journal(None))
    await smsc.start()
    store = world.configuration.store
    settings = {
        "host": "127.0.0.1", "port": smsc.port, "system_id": "sb", "messages_per_second": None,
        "default_sender": OURS, "response_timeout_seconds": 1.0,
    }  # fmt: skip
    account = await store.put_account(SMS, "main", msgspec.json.encode(settings))
    app_id = AppId(mint())
    credential = Credential(channel=SMS, static_bearer=StaticBearer("main", "t"))
    app = App(id=app_id, project_id=PROJECT, display_name="Harbour", channel_credentials=(credential,))
    await store.insert_app(app)
    await store.put_number(account, OURS, app_id)
    await start(registry.adapter(switchboard_channels, SMS))
    await wait_until(lambda: len(smsc.bound("sb")) == 2)
    yield Sms(world, smsc, account, app_id)
    await smsc.stop()


async def test_a_text_is_taken_and_its_receipt_is_told(sms: Sms) -> None:
    order = await sms.send("46701234567")
    outcome = await sms.outcome(order)
    receipts = await wait_until(lambda: sms.world.receipts_told(order))

    assert isinstance(outcome, Accepted)
    assert [(r.provider_id, r.status) for r in receipts] == [(outcome.provider_ids[0], Status.DELIVERED)]
    assert receipts[0].channel_metadata == {"operator": "24001"}


async def test_every_part_of_a_long_text_has_its_receipt(sms: Sms) -> None:
    order = await sms.send("46701234567", "The ferry leaves at noon. " * 15)
    outcome = await sms.outcome(order)
    receipts = await wait_until(lambda: all_told(sms, order, 3))

    assert len(outcome.provider_ids) == 3
    assert {r.provider_id for r in receipts} == set(outcome.provider_ids)


async def all_told(sms: Sms, order: DispatchMessage, count: int) -> list[Any]:
    receipts = await sms.world.receipts_told(order)
    return receipts if len(receipts) >= count else []


@pytest.mark.parametrize(
    ("ending", "expected"),
    [("9901", Rejected), ("9905", FailedForNow), ("9909", Unknown), ("9910", Unknown), ("9921", PartlyAccepted)],
)
async def test_what_the_smsc_does_is_told(sms: Sms, ending: str, expected: type) -> None:
    text = "The ferry leaves at noon. " * 15 if ending == "9921" else "Hello"
    order = await sms.send(f"467012{ending}", text)

    assert isinstance(await sms.outcome(order), expected)


async def test_a_receipt_before_the_answer_is_told_after_the_outcome(sms: Sms) -> None:
    order = await sms.send("4670129916")
    receipts = await wait_until(lambda: sms.world.receipts_told(order))
    told = await sms.world.told(order)

    assert [type(record).__name__ for record in told] == ["AttemptFinished", "ReceiptReceived"]
    assert receipts[0].status is Status.DELIVERED


async def test_a_negative_receipt_is_told_with_its_reason(sms: Sms) -> None:
    order = await sms.send("4670129918")
    receipts = await wait_until(lambda: sms.world.receipts_told(order))

    assert receipts[0].status is Status.FAILED
    assert receipts[0].reason is not None


async def test_what_a_person_writes_reaches_the_number_s_app(sms: Sms) -> None:
    sms.smsc.say("46701234567", OURS, "Is it late?", account="sb")
    (received,) = await wait_until(sms.world.received)

    assert (received.app_id, received.identity.identity, received.sender_id) == (sms.app_id, "46701234567", OURS)
    assert received.message.text_message == TextMessage("Is it late?")


async def test_a_long_text_from_a_person_is_one_message_however_often_it_comes(sms: Sms) -> None:
    text = "Is the ferry late again today? " * 12
    sms.smsc.say("46701234567", OURS, text, account="sb", times=2)
    await wait_until(lambda: sms.smsc.deliveries_done >= 6)
    received = await sms.world.received()

    assert {r.message.text_message for r in received} == {TextMessage(text)}
    assert len({r.message_id for r in received}) == 1


async def test_a_text_to_a_number_of_no_app_is_acknowledged_and_dropped(sms: Sms) -> None:
    sms.smsc.say("46701234567", "46999999999", "Anybody there?", account="sb")
    await wait_until(lambda: sms.smsc.deliveries_done >= 1)

    assert await sms.world.received() == []


async def test_without_a_bind_an_attempt_is_throttled_not_lost(sms: Sms) -> None:
    sms.smsc.refuse_binds_with = 0x0D
    for peer in list(sms.smsc.peers):
        peer.cut()
    await wait_until(lambda: not sms.smsc.bound())
    outcome = await sms.outcome(await sms.send("46701234567"))

    assert isinstance(outcome, FailedForNow)
    assert outcome.throttled
