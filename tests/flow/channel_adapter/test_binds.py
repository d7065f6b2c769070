"""Sessions hang on leases: at most an account's limit over all instances, each instance its share."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel

from switchboard.bus import Producer
from switchboard.channel.contract import Account, Attempt, BindLease, InboundPart, SendResult, SessionHost
from switchboard.channel.errors import NotConfigured
from switchboard.channel.outcome import Accepted
from switchboard.configuration import Configuration, ConfigurationStore
from switchboard.identity import ChannelName
from switchboard.secrets import KeyRing
from switchboard.store.pool import Pool
from switchboard.testing import wait_until
from switchboard_channel_adapter.binds import Binds
from switchboard_channel_adapter.inbound import Facts
from switchboard_channel_adapter.lines import SessionLine
from switchboard_channel_adapter.receipts import Receipts
from switchboard_channels.sms.manifest import MANIFEST as SMS_MANIFEST

from .conftest import AT_NOON, attempt_of

SMS = ChannelName("SMS")


class Settings(BaseModel):
    """What the scripted SMSC's operator writes down."""

    binds: int
    broken: bool = False


MANIFEST = replace(SMS_MANIFEST, account_settings=Settings)


class ScriptedSession:
    """Bound as long as it holds its lease."""

    def __init__(self, account: Account, host: SessionHost, lease: BindLease) -> None:
        self.account, self.host, self.lease = account, host, lease
        self.is_bound = False
        self.free_slots = 2
        self.sent: list[Attempt] = []

    async def run(self) -> None:
        self.is_bound = True
        try:
            await self.lease.lost.wait()
        finally:
            self.is_bound = False

    async def send(self, attempt: Attempt) -> SendResult:
        self.sent.append(attempt)
        return SendResult(Accepted(("p",)))


class ScriptedSmsc:
    """A connection channel."""

    manifest = MANIFEST

    def __init__(self) -> None:
        self.sessions: list[ScriptedSession] = []

    def max_binds(self, account: Account) -> int:
        assert isinstance(account.settings, Settings)
        return account.settings.binds

    def session(self, account: Account, host: SessionHost, lease: BindLease) -> ScriptedSession:
        if account.settings.broken:
            raise NotConfigured("host is missing")
        session = ScriptedSession(account, host, lease)
        self.sessions.append(session)
        return session

    @property
    def bound(self) -> int:
        return sum(session.is_bound for session in self.sessions)


class Instance(Struct, frozen=True):
    smsc: ScriptedSmsc
    line: SessionLine
    binds: Binds


Run = Callable[..., Awaitable[Instance]]


@pytest.fixture
async def configuration(pool: Pool) -> AsyncIterator[Configuration]:
    store = ConfigurationStore(pool, KeyRing({"k1": bytes(32)}), {SMS: MANIFEST})
    await store.put_account(SMS, "main", b'{"binds": 3}')
    configuration = Configuration(store)
    await configuration.start()
    yield configuration
    await configuration.stop()


@pytest.fixture
async def run(pool: Pool, configuration: Configuration) -> AsyncIterator[Run]:
    """Run an instance: `await run("a")`. Its facts go nowhere."""
    async with AsyncExitStack() as stack:

        async def begin(owner: str, lease_seconds: float = 30.0, instance: str = "") -> Instance:
            smsc, line = ScriptedSmsc(), SessionLine()
            binds = Binds(
                smsc, line, facts(pool, configuration), configuration, pool,
                owner=owner, instance=instance, lease_seconds=lease_seconds, renew_seconds=0.05,
            )  # fmt: skip
            await binds.start()
            stack.push_async_callback(binds.stop)
            return Instance(smsc, line, binds)

        yield begin


def facts(pool: Pool, configuration: Configuration) -> Facts:
    producer: Any = Producer
    receipts = Receipts(pool, producer, topic_prefix="t.")
    return Facts(MANIFEST, pool, producer, receipts, configuration, topic_prefix="t.", hash_key=b"k")


async def test_one_instance_holds_all_binds(run: Run) -> None:
    alone = await run("a")

    await wait_until(lambda: alone.smsc.bound == 3)


async def test_what_an_earlier_life_of_an_instance_held_is_free_at_once(run: Run, pool: Pool) -> None:
    killed = await run("adapter-0-a", instance="adapter-0-")
    await wait_until(lambda: killed.smsc.bound == 3)
    assert killed.binds._task is not None
    killed.binds._task.cancel()

    again = await run("adapter-0-b", instance="adapter-0-")

    await wait_until(lambda: again.smsc.bound == 3)
    assert await pool.fetchval("SELECT count(*) FROM bind_holders") == 1


async def test_what_another_instance_held_is_not(run: Run, pool: Pool) -> None:
    other = await run("adapter-10-a", instance="adapter-10-")
    await wait_until(lambda: other.smsc.bound == 3)

    first = await run("adapter-1-a", instance="adapter-1-")

    await wait_until(lambda: first.smsc.bound == 1)
    assert other.smsc.bound == 2


async def test_a_newcomer_gets_its_share_and_the_limit_holds(run: Run, pool: Pool) -> None:
    first = await run("a")
    await wait_until(lambda: first.smsc.bound == 3)
    most = 0

    def counted() -> bool:
        nonlocal most
        most = max(most, first.smsc.bound + second.smsc.bound)
        return (first.smsc.bound, second.smsc.bound) == (2, 1)

    second = await run("b")
    await wait_until(counted)

    assert most == 3


async def test_the_binds_of_an_instance_that_stops_go_to_the_others(run: Run) -> None:
    first, second = await run("a"), await run("b")
    await wait_until(lambda: first.smsc.bound + second.smsc.bound == 3 and second.smsc.bound > 0)
    await first.binds.stop()

    await wait_until(lambda: second.smsc.bound == 3)


async def test_a_lease_that_another_took_closes_the_bind(run: Run, pool: Pool) -> None:
    instance = await run("a")
    await wait_until(lambda: instance.smsc.bound == 3)
    first = next(session for session in instance.smsc.sessions)
    await pool.execute(
        "UPDATE switchboard.binds SET owner = 'thief', token = token + 1,"
        " lease_until = switchboard.now() + interval '1 hour' WHERE slot = 0"
    )

    await wait_until(lambda: not first.is_bound)
    assert instance.smsc.bound == 2


async def test_a_lease_that_cannot_be_renewed_is_given_up_before_it_ends(run: Run, pool: Pool) -> None:
    instance = await run("a", lease_seconds=0.6)
    await wait_until(lambda: instance.smsc.bound == 3)
    await pool.execute("ALTER TABLE switchboard.binds RENAME TO binds_away")
    try:
        await wait_until(lambda: instance.smsc.bound == 0)
        left = await pool.fetchval("SELECT min(lease_until - switchboard.now()) > '0' FROM switchboard.binds_away")
    finally:
        await pool.execute("ALTER TABLE switchboard.binds_away RENAME TO binds")

    assert left


async def test_a_changed_account_is_bound_anew(run: Run, configuration: Configuration) -> None:
    instance = await run("a")
    await wait_until(lambda: instance.smsc.bound == 3)
    await configuration.store.put_account(SMS, "main", b'{"binds": 1}')

    await wait_until(lambda: instance.smsc.bound == 1 and len(instance.smsc.sessions) == 4)


async def test_an_account_that_cannot_be_used_harms_no_other(run: Run, configuration: Configuration) -> None:
    await configuration.store.put_account(SMS, "broken", b'{"binds": 2, "broken": true}')
    instance = await run("a")

    await wait_until(lambda: instance.smsc.bound == 3)


async def test_sessions_are_offered_while_their_windows_have_room(run: Run, configuration: Configuration) -> None:
    instance = await run("a")
    await wait_until(lambda: instance.smsc.bound == 3)
    account = instance.smsc.sessions[0].account
    ways = [instance.line.offer(account) for _ in range(7)]
    offered = [way for way in ways if way is not None]
    offered[0].let_go()
    offered[0].let_go()
    again = [instance.line.offer(account) for _ in range(2)]

    assert len(offered) == 6
    assert [way is not None for way in again] == [True, False]


async def test_a_way_that_is_used_is_counted_by_the_session(run: Run) -> None:
    instance = await run("a")
    await wait_until(lambda: instance.smsc.bound == 3)
    account = instance.smsc.sessions[0].account
    for _ in range(20):
        way = instance.line.offer(account)
        assert way is not None
        await way.send(attempt_of("46701230001"), account)

    assert sum(len(session.sent) for session in instance.smsc.sessions) == 20


async def test_parts_are_collected_until_all_are_there(run: Run) -> None:
    instance = await run("a")
    await wait_until(lambda: instance.smsc.bound == 3)
    host = instance.smsc.sessions[0].host

    def part(number: int) -> InboundPart:
        return InboundPart("g", number, 3, bytes([number]), AT_NOON)

    collected: list[Sequence[InboundPart]] = [await host.collect(part(n)) for n in (3, 1, 1, 2)]
    assert [len(parts) for parts in collected] == [0, 0, 0, 3]
    assert [p.number for p in collected[-1]] == [1, 2, 3]


async def test_a_stop_unbinds_and_gives_the_leases_back(run: Run, pool: Pool) -> None:
    instance = await run("a")
    await wait_until(lambda: instance.smsc.bound == 3)
    await instance.binds.stop()

    free = await pool.fetchval("SELECT count(*) FROM switchboard.binds WHERE owner IS NULL")
    assert (instance.smsc.bound, free) == (0, 3)
