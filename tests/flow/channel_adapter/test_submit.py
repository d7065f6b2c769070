"""An attempt is submitted once, in its person's order, and its outcome is recorded before it is told."""

import asyncio

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from switchboard.bus import Outgoing, Record
from switchboard.channel.contract import Account, Attempt, SendResult
from switchboard.channel.errors import NotConfigured, Unsupported
from switchboard.channel.outcome import Accepted, FailedForNow, Outcome, Rejected, Unknown
from switchboard.http.pooled import PooledHttpClient
from switchboard.identity import ChannelIdentity
from switchboard.reason import Reason, ReasonCode
from switchboard.records import DispatchMessage
from switchboard.store import timeline
from switchboard.testing import wait_until
from switchboard.topics import DISPATCH
from switchboard_channel_adapter.admission import Admission, SharedSlots
from switchboard_channel_adapter.errands import Errands
from switchboard_channel_adapter.lines import RequestLine
from switchboard_channel_adapter.submit import Submitter
from switchboard_channels.telegram.manifest import MANIFEST

from .conftest import SMS, TELEGRAM, ScriptedChannel, Start, World, quick

NO_LINE = Reason(ReasonCode.BAD_REQUEST, "no")


async def hangs(attempt: Attempt) -> SendResult:
    """A provider that never answers."""
    await asyncio.Event().wait()
    raise AssertionError


async def test_an_attempt_is_submitted_recorded_and_told(world: World, start: Start) -> None:
    channel = ScriptedChannel()
    await start(channel)
    order = await world.plan()
    await world.dispatch(order)
    await wait_until(lambda: world.outcomes(order))

    row = await world.row(order)
    named = await world.pool.fetch("SELECT * FROM switchboard.provider_ids")
    async with world.pool.acquire() as connection:
        moments = await timeline.read(connection, order.message_id)
    expected = Accepted((f"p-{order.message_id}.0.1",))
    assert [attempt.message_id for attempt in channel.submitted] == [order.message_id]
    assert await world.outcomes(order) == [expected]
    assert (row["state"], msgspec.json.decode(row["outcome"], type=Outcome)) == ("finished", expected)
    assert [(r["account"], r["provider_id"], r["part"]) for r in named] == [
        (world.account, expected.provider_ids[0], 1)
    ]
    assert [(moment.kind, moment.entry.note) for moment in moments] == [("submitted", "accepted")]


async def test_a_redelivered_order_is_not_submitted_again(world: World, start: Start) -> None:
    channel = ScriptedChannel()
    await start(channel)
    order, last = await world.plan(), await world.plan()
    await world.dispatch(order, order, order, last)
    await wait_until(lambda: world.outcomes(last))

    assert [a.message_id for a in channel.submitted].count(order.message_id) == 1
    assert len(await world.outcomes(order)) == 1


async def test_two_instances_submit_each_attempt_once(world: World, start: Start) -> None:
    first, second = ScriptedChannel(), ScriptedChannel()
    await start(first)
    await start(second)
    orders = [await world.plan(chat=str(1000 + n)) for n in range(40)]
    # Each order twice, under two keys: whichever instances get them race for the claim.
    twins = [msgspec.structs.replace(o, identity=ChannelIdentity(TELEGRAM, f"9{o.identity.identity}")) for o in orders]
    await world.dispatch(*orders, *twins)
    await wait_until(lambda: asyncio.sleep(0, len(first.submitted) + len(second.submitted) >= 40))
    last = await world.plan(chat="1")
    await world.dispatch(last)
    await wait_until(lambda: world.outcomes(last))

    submitted = [a.message_id for a in (*first.submitted, *second.submitted)]
    assert sorted(submitted) == sorted([*(o.message_id for o in orders), last.message_id])


async def test_an_attempt_past_its_time_is_left_to_the_router_and_keeps_its_turn(world: World, start: Start) -> None:
    channel = ScriptedChannel()
    await start(channel)
    late, next_one, other = await world.plan("7", seconds=-1.0), await world.plan("7"), await world.plan("8")
    await world.dispatch(late, next_one, other)
    await wait_until(lambda: world.outcomes(other))
    undecided = (await world.row(late))["state"]
    await world.publish_once_more(late)
    await wait_until(lambda: world.outcomes(next_one))

    assert undecided == "planned"
    assert [a.message_id for a in channel.submitted] == [other.message_id, late.message_id, next_one.message_id]


async def test_one_person_is_written_to_in_order_and_others_meanwhile(world: World, start: Start) -> None:
    hold = asyncio.Event()

    async def first_hangs(attempt: Attempt) -> SendResult:
        if attempt.message_id == first.message_id:
            await hold.wait()
        return SendResult(Accepted((attempt.attempt_id,)))

    channel = ScriptedChannel(first_hangs)
    await start(channel)
    first, second, other = await world.plan("7"), await world.plan("7"), await world.plan("8")
    await world.dispatch(first, second, other)
    await wait_until(lambda: world.outcomes(other))
    begun = [a.message_id for a in channel.submitted]
    hold.set()
    await wait_until(lambda: world.outcomes(second))

    assert second.message_id not in begun
    assert [a.message_id for a in channel.submitted if a.identity.identity == "7"] == [
        first.message_id,
        second.message_id,
    ]


async def test_a_call_that_hangs_holds_no_partition(
    monkeypatch: pytest.MonkeyPatch, world: World, start: Start
) -> None:
    # Outlives the service: fixtures end in the opposite order.
    monkeypatch.setattr("switchboard_channel_adapter.submit.DRAIN_SECONDS", 0.05)

    channel = ScriptedChannel(hangs)
    await start(channel)
    await world.dispatch(*[await world.plan(chat=str(n)) for n in range(4)])
    await wait_until(lambda: len(channel.submitted) == 4)

    consumed = await wait_until(lambda: committed(world))
    assert consumed == 4


async def test_a_channel_whose_accounts_all_hang_leaves_slots_to_the_others(
    monkeypatch: pytest.MonkeyPatch, world: World, start: Start
) -> None:
    monkeypatch.setattr("switchboard_channel_adapter.submit.DRAIN_SECONDS", 0.05)

    dead, alive = ScriptedChannel(hangs), ScriptedChannel(manifest=msgspec.structs.replace(MANIFEST, channel=SMS))
    await start(dead, alive, slots=4)
    for chat in "1234":
        app_id, account = await world.bot()
        await world.dispatch(await world.plan(chat, app_id=app_id, account=account))
    await wait_until(lambda: len(dead.submitted) == 3)
    order = await world.plan(identity=ChannelIdentity(SMS, "46701234567"))

    await world.dispatch(order)

    await wait_until(lambda: world.outcomes(order))
    assert isinstance((await world.outcomes(order))[0], Accepted)
    assert [attempt.message_id for attempt in alive.submitted] == [order.message_id]


async def committed(world: World) -> int:
    """Offsets the group committed, once it committed any."""
    admin = AIOKafkaAdminClient(bootstrap_servers=world.kafka)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(f"{world.prefix}channel-adapter.telegram")
    finally:
        await admin.close()
    total = sum(max(0, offset.offset) for offset in offsets.values())
    return total if total == 4 else 0


async def test_a_provider_that_never_answers_leaves_an_unknown(world: World, start: Start) -> None:
    await start(ScriptedChannel(hangs, quick(-1.9)))
    order = await world.plan()
    await world.dispatch(order)
    outcomes = await wait_until(lambda: world.outcomes(order))

    assert isinstance(outcomes[0], Unknown)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Unsupported(NO_LINE), Rejected(NO_LINE)),
        (
            NotConfigured("token is missing"),
            Rejected(Reason(ReasonCode.CHANNEL_BAD_CONFIGURATION, "token is missing"), misconfigured=True),
        ),
        (
            RuntimeError("a bug"),
            Unknown(Reason(ReasonCode.INTERNAL_ERROR, "The channel's adapter failed.")),
        ),
    ],
)
async def test_what_an_adapter_raises_is_an_outcome(
    world: World, start: Start, error: Exception, expected: Outcome
) -> None:
    async def fails(attempt: Attempt) -> SendResult:
        raise error

    await start(ScriptedChannel(fails))
    order = await world.plan()
    await world.dispatch(order)

    assert await wait_until(lambda: world.outcomes(order)) == [expected]


async def test_an_attempt_of_an_account_that_is_gone_is_rejected(world: World, start: Start) -> None:
    channel = ScriptedChannel()
    await start(channel)
    order = await world.plan()
    await world.configuration.store.delete_app(world.app_id)
    await wait_until(lambda: is_gone(world))
    await world.dispatch(order)
    outcomes = await wait_until(lambda: world.outcomes(order))

    assert isinstance(outcomes[0], Rejected)
    assert outcomes[0].reason.code is ReasonCode.CHANNEL_CONFIGURATION_MISSING
    assert channel.submitted == []


async def is_gone(world: World) -> bool:
    return await world.configuration.account(world.account, world.app_id) is None


async def test_an_order_nobody_can_read_ends_its_attempt(world: World, start: Start) -> None:
    channel = ScriptedChannel()
    await start(channel)
    order = await world.plan()
    broken = Outgoing(DISPATCH.name(world.prefix, TELEGRAM), b"k", b'{"step": "x"}', DISPATCH.headers(order))
    await world.producer.publish([broken])
    outcomes = await wait_until(lambda: world.outcomes(order))

    assert isinstance(outcomes[0], Rejected)
    assert (await world.row(order))["state"] == "finished"


class Settled:
    """The bus's slots, remembered."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def finish(self, record: Record, *, hold_key: bool = False) -> None:
        self.said.append("held" if hold_key else "finished")

    def release(self, record: Record) -> None:
        self.said.append("released")

    def fail(self, record: Record, error: BaseException) -> None:
        self.said.append(type(error).__name__)


class NoWay(RequestLine):
    """A channel that can write nothing."""

    def offer(self, account: Account) -> None:
        return None


def admission(**options: float) -> Admission:
    """Slots enough."""
    return Admission(8, SharedSlots(0), most=2, **options)


def submitter(
    world: World, channel: ScriptedChannel, line: type[RequestLine] = RequestLine, **options: object
) -> Submitter:
    given = {"claims": world.claims(), "recorder": world.recorder, "admission": admission(), **options}
    return Submitter(
        channel.manifest,
        line(channel, PooledHttpClient()),
        configuration=world.configuration,
        pool=world.pool,
        errands=Errands(
            channel,
            PooledHttpClient(),
            world.configuration,
            world.pool,
            world.producer,
            topic_prefix=world.prefix,
            hash_key=b"k" * 32,
        ),
        **given,  # type: ignore[arg-type]
    )


def record_of(order: DispatchMessage, world: World) -> Record:
    topic = DISPATCH.name(world.prefix, TELEGRAM)
    return Record(topic, 0, 0, b"k", DISPATCH.encode(order), DISPATCH.headers(order), 0)


async def test_what_cannot_be_written_within_patience_is_throttled_and_finished(world: World) -> None:
    channel, settled = ScriptedChannel(), Settled()
    served = submitter(world, channel, NoWay, admission=admission(patience_seconds=0.05))
    order = await world.plan()
    await served([record_of(order, world)], settled)  # type: ignore[arg-type]
    await wait_until(lambda: settled.said)

    outcomes = await world.outcomes(order)
    assert settled.said == ["finished"]
    assert isinstance(outcomes[0], FailedForNow)
    assert outcomes[0].throttled
    assert (await world.row(order))["state"] == "finished"
    assert channel.submitted == []


async def test_a_process_that_stood_still_past_the_deadline_sends_nothing_and_says_so(world: World) -> None:
    moments = iter([100.0, 131.0])  # before the claim, and before the first byte
    clock = lambda: next(moments)  # noqa: E731
    channel, settled = ScriptedChannel(), Settled()
    served = submitter(world, channel, claims=world.claims(monotonic=clock), monotonic=clock)
    order = await world.plan(seconds=30.0)
    await served([record_of(order, world)], settled)  # type: ignore[arg-type]
    await wait_until(lambda: world.outcomes(order))

    outcomes = await world.outcomes(order)
    assert channel.submitted == []
    assert isinstance(outcomes[0], FailedForNow)
    assert not outcomes[0].throttled
    assert settled.said == ["held", "released"]


async def test_a_stop_leaves_a_hanging_attempt_claimed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchboard_channel_adapter.submit.DRAIN_SECONDS", 0.05)
    channel, settled = ScriptedChannel(hangs), Settled()
    served = submitter(world, channel)
    order = await world.plan()
    await served([record_of(order, world)], settled)  # type: ignore[arg-type]
    await wait_until(lambda: channel.submitted)
    await served.stop()

    assert (await world.row(order))["state"] == "claimed"
    assert await world.told(order) == []
