"""What session tests need around a session: a host that writes down what it is given, a lease, an attempt."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any

from switchboard.channel.contract import Account, Attempt, Fact, InboundFact, InboundPart, ReceiptFact
from switchboard.content import AppMessage, TextMessage
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey, AppId, AttemptId, MessageId, mint
from switchboard.testing.waiting import wait_until
from switchboard_channels.sms.account import SmscAccount
from switchboard_channels.sms.adapter import SmsAdapter
from switchboard_channels.sms.session import SmppSession

PHONE = "46701230001"
_numbers = count(1)


class Lease:
    """A bind lease a test can take away."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()


class Desk:
    """The host's side of the contract, on paper."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.parts: dict[str, dict[int, InboundPart]] = {}
        #: Raised by `receive`, once each, before it takes anything.
        self.troubles: list[Exception] = []
        #: Cleared, `receive` waits: the database is slow.
        self.may_store = asyncio.Event()
        self.may_store.set()
        self.calls = 0

    async def receive(self, facts: Sequence[Fact]) -> None:
        """Take facts."""
        self.calls += 1
        await self.may_store.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        self.facts += facts

    async def collect(self, part: InboundPart) -> Sequence[InboundPart]:
        """Take a part; all of them once they are there."""
        group = self.parts.setdefault(part.group, {})
        group[part.number] = part
        return [group[number] for number in sorted(group)] if len(group) == part.total else []

    @property
    def receipts(self) -> list[ReceiptFact]:
        """The receipts among the facts."""
        return [fact for fact in self.facts if isinstance(fact, ReceiptFact)]

    @property
    def inbound(self) -> list[InboundFact]:
        """The messages among the facts, each provider id once, as the real host keeps them."""
        kept = {fact.provider_id: fact for fact in self.facts if isinstance(fact, InboundFact)}
        return list(kept.values())


def account(port: int, **settings: Any) -> Account:
    """An account at a loopback SMSC whose waits are short."""
    given: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "system_id": "switchboard",
        "password": "secret",
        "messages_per_second": None,
        "first_reconnect_seconds": 0.01,
        "longest_reconnect_seconds": 0.05,
        "default_sender": "Acme",
        **settings,
    }
    return Account(AccountKey("smsc-1"), settings=SmscAccount(**given))


def attempt(
    text: str = "Hello", to: str = PHONE, ttl: int | None = None, properties: dict[str, str] | None = None
) -> Attempt:
    """An attempt with ids of its own."""
    message_id = MessageId(mint())
    return Attempt(
        message_id=message_id,
        attempt_id=AttemptId(f"{message_id}.1.{next(_numbers)}"),
        app_id=AppId("app"),
        identity=ChannelIdentity(ChannelName("SMS"), to),
        message=AppMessage(text_message=TextMessage(text)),
        channel_properties=properties or {},
        ttl_seconds_left=ttl,
    )


@asynccontextmanager
async def session(
    given: Account,
    desk: Desk | None = None,
    *,
    lease: Lease | None = None,
    adapter: SmsAdapter | None = None,
    now: Callable[[], datetime] | None = None,
    wait_for_bind: bool = True,
) -> AsyncIterator[SmppSession]:
    """A running session, bound unless told otherwise."""
    made = (adapter or SmsAdapter()).session(given, desk or Desk(), lease or Lease())
    if now is not None:
        made._now = now
    running = asyncio.create_task(made.run())
    try:
        if wait_for_bind:
            await wait_until(lambda: made.is_bound, describe="the session is bound")
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)
