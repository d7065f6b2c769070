"""Sessions under leases: at most an account's limit over all instances, each instance its share (DESIGN 7).

A lease is a row of `binds` with a token. It is renewed long before it ends; an instance that cannot renew closes the
bind before another may open it. Instances that serve a channel are known from `bind_holders`, so that a newcomer gets
its share: whoever holds more lets one go. Run no more instances of a connection channel than its accounts have binds.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Final

import structlog
from msgspec import Struct

from switchboard.channel.contract import Account, Fact, InboundPart, Session, SessionAdapter
from switchboard.channel.errors import NotConfigured
from switchboard.configuration import Configuration
from switchboard.ids import AccountKey, AppId
from switchboard.store.pool import TRANSIENT_ERRORS, Pool
from switchboard_channel_adapter import metrics
from switchboard_channel_adapter.inbound import Facts
from switchboard_channel_adapter.lines import SessionLine

log = structlog.get_logger(__name__)

LEASE_SECONDS: Final = 30.0
RENEW_SECONDS: Final = 5.0
#: A lease that could not be renewed is given up this long before it ends.
_MARGIN_SECONDS: Final = 5.0

_APPEAR: Final = """
INSERT INTO switchboard.bind_holders (channel, owner, seen_until)
VALUES ($1, $2, switchboard.now() + make_interval(secs => $3))
ON CONFLICT (channel, owner) DO UPDATE SET seen_until = excluded.seen_until
"""
_HOLDERS: Final = """
WITH gone AS (DELETE FROM switchboard.bind_holders WHERE channel = $1 AND seen_until <= switchboard.now())
SELECT count(*) FROM switchboard.bind_holders WHERE channel = $1 AND seen_until > switchboard.now()
"""
_INHERIT: Final = """
WITH gone AS (DELETE FROM switchboard.bind_holders WHERE channel = $1 AND starts_with(owner, $2) AND owner <> $3)
UPDATE switchboard.binds SET owner = NULL, lease_until = NULL WHERE starts_with(owner, $2) AND owner <> $3
"""
_LEAVE: Final = "DELETE FROM switchboard.bind_holders WHERE channel = $1 AND owner = $2"
_SLOTS: Final = """
INSERT INTO switchboard.binds (account, slot) SELECT $1, generate_series(0, $2::integer - 1) ON CONFLICT DO NOTHING
"""
_TAKE: Final = """
UPDATE switchboard.binds b
SET owner = $2, token = b.token + 1, lease_until = switchboard.now() + make_interval(secs => $4)
WHERE (b.account, b.slot) = (
    SELECT account, slot FROM switchboard.binds
    WHERE account = $1 AND slot < $3 AND (lease_until IS NULL OR lease_until <= switchboard.now())
    ORDER BY slot LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING b.slot, b.token
"""
_RENEW: Final = """
UPDATE switchboard.binds SET lease_until = switchboard.now() + make_interval(secs => $5)
WHERE account = $1 AND slot = $2 AND owner = $3 AND token = $4 AND lease_until > switchboard.now()
RETURNING slot
"""
_GIVE_BACK: Final = """
UPDATE switchboard.binds SET owner = NULL, lease_until = NULL
WHERE account = $1 AND slot = $2 AND owner = $3 AND token = $4
"""


class Right(Struct, frozen=True):
    """What a lease row says: this slot, under this token."""

    slot: int
    token: int


class Lease:
    """The right to hold one bind, until `lost` is set: by a timer, so that a database that hangs cannot extend it."""

    def __init__(self, account: AccountKey, right: Right, taken_at: float, seconds: float) -> None:
        """`taken_at` is the event loop's time before the row was asked for."""
        self.lost = asyncio.Event()
        self.account = account
        self.right = right
        self._seconds = seconds
        self._timer = self._set_timer(taken_at)

    def renewed(self, asked_at: float) -> None:
        """The row was renewed; it was asked for at that time."""
        self._timer.cancel()
        self._timer = self._set_timer(asked_at)

    def close(self) -> None:
        """Nobody holds a bind under it any more."""
        self._timer.cancel()
        self.lost.set()

    def _set_timer(self, begun_at: float) -> asyncio.TimerHandle:
        margin = min(_MARGIN_SECONDS, self._seconds / 2)
        return asyncio.get_running_loop().call_at(begun_at + self._seconds - margin, self.lost.set)


class Held(Struct, frozen=True, eq=False):
    """A session and what it stands on."""

    account: Account
    lease: Lease
    session: Session
    task: "asyncio.Task[None]"


class _Host:
    """What a session hands the things it hears."""

    def __init__(self, facts: Facts, account: AccountKey) -> None:
        self._facts = facts
        self._account = account

    async def receive(self, facts: Sequence[Fact]) -> None:
        await self._facts.take(self._account, facts)

    async def collect(self, part: InboundPart) -> Sequence[InboundPart]:
        return await self._facts.collect(self._account, part)


class Binds:
    """Opens and closes the sessions of one channel in this process."""

    def __init__(
        self,
        adapter: SessionAdapter,
        line: SessionLine,
        facts: Facts,
        configuration: Configuration,
        pool: Pool,
        *,
        owner: str,
        instance: str = "",
        lease_seconds: float = LEASE_SECONDS,
        renew_seconds: float = RENEW_SECONDS,
    ) -> None:
        """`owner` names this process and no other one. It begins with `instance`, as the names of its earlier lives
        did and no other living process's does: what they held is free at once. "" if there is no such name.
        """
        self._adapter = adapter
        self._channel = adapter.manifest.channel
        self._line = line
        self._facts = facts
        self._configuration = configuration
        self._pool = pool
        self._owner = owner
        self._instance = instance
        self._lease_seconds = lease_seconds
        self._renew_seconds = renew_seconds
        self._held: list[Held] = []
        self._giving_back: set[asyncio.Task[None]] = set()
        self._look_now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to hold binds, and follow changes of the accounts."""
        self._configuration.on_change(self._on_change)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Unbind cleanly and give the leases back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for held in self._held:
            held.task.cancel()
        await asyncio.gather(*(held.task for held in self._held), *self._giving_back, return_exceptions=True)
        try:
            for held in self._held:
                held.lease.close()
                await self._give_back(held.lease)
            await self._pool.execute(_LEAVE, self._channel, self._owner)
        except TRANSIENT_ERRORS:
            log.info("leases are left to end by themselves", channel=self._channel)
        self._held.clear()

    def _on_change(self, change: str) -> None:
        if change == "" or change.startswith("provider_accounts:"):
            self._look_now.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001  # without this loop every bind would be lost for good
                log.warning("binds cannot be looked after", channel=self._channel, error=type(error).__name__)
            self._end_what_is_over()
            metrics.binds.labels(self._channel).set(self._line.bound)
            try:
                async with asyncio.timeout(self._renew_seconds):
                    await self._look_now.wait()
            except TimeoutError:
                pass
            self._look_now.clear()

    async def _look(self) -> None:
        """Renew, close what is not wanted any more, open what is missing."""
        if self._instance:
            await self._pool.execute(_INHERIT, self._channel, self._instance, self._owner)
            self._instance = ""
        await self._renew()
        await self._pool.execute(_APPEAR, self._channel, self._owner, self._lease_seconds)
        holders = max(1, await self._pool.fetchval(_HOLDERS, self._channel))
        wanted = {
            account.key: account
            for key in [provider.key for provider in await self._configuration.accounts(self._channel)]
            if (account := await self._configuration.account(key, _NO_APP)) is not None
        }
        for held in self._held:
            if wanted.get(held.account.key) != held.account:
                held.lease.lost.set()
        for account in wanted.values():
            await self._adjust(account, holders)

    async def _adjust(self, account: Account, holders: int) -> None:
        try:
            limit = self._adapter.max_binds(account)
        except NotConfigured as error:
            log.error("a provider account cannot be used", account=account.key, why=str(error))
            return
        share = math.ceil(limit / holders)
        live = [held for held in self._held if held.account == account and not held.lease.lost.is_set()]
        for held in live[share:]:
            held.lease.lost.set()
        await self._pool.execute(_SLOTS, account.key, limit)
        for _ in range(share - len(live)):
            asked_at = asyncio.get_running_loop().time()
            row = await self._pool.fetchrow(_TAKE, account.key, self._owner, limit, self._lease_seconds)
            if row is None:
                return
            lease = Lease(account.key, Right(row["slot"], row["token"]), asked_at, self._lease_seconds)
            if not self._open(account, lease):
                lease.close()
                await self._give_back(lease)
                return

    def _open(self, account: Account, lease: Lease) -> bool:
        try:
            session = self._adapter.session(account, _Host(self._facts, account.key), lease)
        except NotConfigured as error:
            log.error("a provider account cannot be used", account=account.key, why=str(error))
            return False
        self._line.add(account.key, session)
        task = asyncio.create_task(session.run())
        task.add_done_callback(lambda _: self._look_now.set())
        self._held.append(Held(account, lease, session, task))
        return True

    async def _renew(self) -> None:
        for held in self._held:
            if held.lease.lost.is_set():
                continue
            asked_at = asyncio.get_running_loop().time()
            right = held.lease.right
            renewed = await self._pool.fetchval(
                _RENEW, held.lease.account, right.slot, self._owner, right.token, self._lease_seconds
            )
            if renewed is None:
                log.warning("a bind's lease was lost", channel=self._channel, account=held.account.key)
                held.lease.lost.set()
            else:
                held.lease.renewed(asked_at)

    def _end_what_is_over(self) -> None:
        """Give back the leases of sessions that ended, whatever the reason."""
        for held in [held for held in self._held if held.task.done()]:
            self._held.remove(held)
            held.lease.close()
            self._line.remove(held.account.key, held.session)
            if not held.task.cancelled() and (error := held.task.exception()) is not None:
                log.error("a session ended with an error", channel=self._channel, error=type(error).__name__)
            task = asyncio.create_task(self._give_back_quietly(held.lease))
            self._giving_back.add(task)
            task.add_done_callback(self._giving_back.discard)

    async def _give_back_quietly(self, lease: Lease) -> None:
        try:
            await self._give_back(lease)
        except TRANSIENT_ERRORS:
            log.info("a lease is left to end by itself", channel=self._channel)

    async def _give_back(self, lease: Lease) -> None:
        await self._pool.execute(_GIVE_BACK, lease.account, lease.right.slot, self._owner, lease.right.token)


#: Operators' accounts belong to no app.
_NO_APP: Final = AppId("")
