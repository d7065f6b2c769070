"""Takes back what a channel accepted and has not delivered, where the channel can. Best effort, once."""

from datetime import datetime

from switchboard.channel.contract import Retracts
from switchboard.configuration import Configuration
from switchboard.http.client import HttpClient
from switchboard.records import RetractMessage
from switchboard.store import timeline
from switchboard.store.pool import Pool
from switchboard.timeline import Entry, Happening, Kind


class Retractor:
    """Retracts over one request channel and writes down how it went."""

    def __init__(self, adapter: Retracts, http: HttpClient, configuration: Configuration, pool: Pool) -> None:
        self._adapter = adapter
        self._http = http
        self._configuration = configuration
        self._pool = pool

    async def retract(self, order: RetractMessage) -> None:
        """Ask the provider. Raises only what database and configuration raise."""
        account = await self._configuration.account(order.account, order.app_id)
        if account is None:
            return
        exchanges = await self._adapter.retract(order.provider_ids, order.identity, account, self._http)
        entry = Entry(
            note="retracted",
            channel=order.identity.channel,
            step=order.step,
            submission=order.submission,
            exchanges=exchanges,
        )
        async with self._pool.acquire() as connection:
            now: datetime = await connection.fetchval("SELECT switchboard.now()")
            cause = f"retracted {order.step}.{order.submission}"
            await timeline.write(connection, [Happening(order.message_id, now, Kind.SUBMITTED, cause, entry)])
