"""Throws away what nothing will ask for any more, puts together long messages whose last parts never came, and brings
receipts to outcomes they missed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from switchboard.channel.contract import InboundPart, PutsTogether
from switchboard.channel.errors import NotConfigured
from switchboard.configuration import Configuration
from switchboard.identity import ChannelName
from switchboard.ids import AccountKey, AppId
from switchboard.store.pool import Pool
from switchboard_channel_adapter import metrics
from switchboard_channel_adapter.inbound import Facts
from switchboard_channel_adapter.receipts import Receipts

log = structlog.get_logger(__name__)

_INTERVAL_SECONDS: Final = 60.0
_RECEIPTS_SECONDS: Final = 5.0
#: How long the parts of a long message wait for the others.
PARTS_SECONDS: Final = 600
#: Unmatched receipts live 72 h (DESIGN 5); providers repeat webhooks for up to 7 days (channel-providers 0.4).
_KEPT_SECONDS: Final[Mapping[tuple[str, str], int]] = {
    ("receipts", "received_at"): 72 * 3600,
    ("inbound_seen", "seen_at"): 8 * 24 * 3600,
    ("postbacks", "kept_at"): 30 * 24 * 3600,
    ("kept_facts", "received_at"): 30 * 24 * 3600,
}
_STALE_PARTS: Final = """
SELECT account, part_group, number, total, content, received_at,
       count(*) OVER (PARTITION BY account, part_group) AS present
FROM switchboard.inbound_parts
WHERE account = ANY($1::text[]) AND (account, part_group) IN (
    SELECT account, part_group FROM switchboard.inbound_parts
    GROUP BY account, part_group HAVING max(received_at) < switchboard.now() - make_interval(secs => $2))
ORDER BY account, part_group, number
"""
_DROP_PARTS: Final = "DELETE FROM switchboard.inbound_parts WHERE account = $1 AND part_group = $2"


class Upkeep:
    """Runs in every instance: what two of them do at once is done once, or comes to the same."""

    def __init__(
        self,
        pool: Pool,
        configuration: Configuration,
        channels: Mapping[ChannelName, tuple[PutsTogether, Facts]],
        receipts: Receipts,
    ) -> None:
        """`channels` are the connection channels that can put parts together."""
        self._pool = pool
        self._configuration = configuration
        self._channels = channels
        self._receipts = receipts
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self._tasks = [
            asyncio.create_task(self._repeat(self.sweep, _INTERVAL_SECONDS)),
            asyncio.create_task(self._repeat(self._receipts.meet_missed, _RECEIPTS_SECONDS)),
        ]

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @staticmethod
    async def _repeat(work: Callable[[], Awaitable[object]], seconds: float) -> None:
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001  # the next round tries again
                log.warning("upkeep is put off", error=type(error).__name__)
            await asyncio.sleep(seconds)

    async def sweep(self) -> None:
        """Do all that is due, once."""
        for (table, column), seconds in _KEPT_SECONDS.items():
            gone = await self._pool.execute(
                f"DELETE FROM switchboard.{table} WHERE {column} < switchboard.now() - make_interval(secs => $1)",
                seconds,
            )
            if table == "receipts":
                metrics.receipts_expired.inc(int(gone.rpartition(" ")[2]))
        for channel, (adapter, facts) in self._channels.items():
            await self._put_together(channel, adapter, facts)

    async def _put_together(self, channel: ChannelName, adapter: PutsTogether, facts: Facts) -> None:
        accounts = [account.key for account in await self._configuration.accounts(channel)]
        groups: dict[tuple[AccountKey, str], list[InboundPart]] = {}
        for row in await self._pool.fetch(_STALE_PARTS, accounts, PARTS_SECONDS):
            part = InboundPart(row["part_group"], row["number"], row["total"], row["content"], row["received_at"])
            groups.setdefault((AccountKey(row["account"]), row["part_group"]), []).append(part)
        for (key, group), parts in groups.items():
            account = await self._configuration.account(key, AppId(""))
            # A whole group was published when it became whole.
            if account is not None and len(parts) < parts[0].total:
                try:
                    await facts.take(key, [adapter.put_together(parts, account)])
                except NotConfigured as error:
                    log.warning("parts cannot be put together", channel=channel, why=str(error))
            await self._pool.execute(_DROP_PARTS, key, group)
