"""Posts callbacks, signed, and records what came of them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import uvloop
from pyreqwest.client import Client, ClientBuilder
from tests.benchmarks.ordinary.models import Callback
from tests.benchmarks.ordinary.parts import Settings, consume, open_pool

from switchboard.callbacks.signing import Try, headers
from switchboard.ids import CallbackId
from switchboard.store.pool import Pool
from switchboard.trigger import Trigger


class Delivery:
    def __init__(self, settings: Settings, pool: Pool, client: Client) -> None:
        self.settings = settings
        self.pool = pool
        self.client = client

    async def on_callback(self, value: bytes) -> None:
        callback = Callback.model_validate_json(value)
        now = datetime.now(UTC)
        body = callback.body.encode()
        known = await self.pool.fetchval("SELECT state FROM callback_events WHERE id = $1", callback.callback_id)
        if known is not None and known != "waiting":
            return
        await self.pool.execute(
            "INSERT INTO callback_events (id, project_id, app_id, endpoint, webhook_id, target, trigger, stream,"
            " sequence, event_at, recorded_at, expires_at, state, body) VALUES ($1, $2, $3, 'endpoint:ordinary',"
            " 'ordinary', $4, 'MESSAGE_DELIVERY', $5, $6, $7, $8, $9, 'waiting', $10) ON CONFLICT DO NOTHING",
            callback.callback_id, callback.project_id, callback.app_id, self.settings.webhook, callback.message_id,
            callback.sequence, callback.event_at, now, now + timedelta(hours=24), body,
        )  # fmt: skip
        this = Try(CallbackId(callback.callback_id), Trigger.MESSAGE_DELIVERY, callback.sequence, 1, callback.event_at)
        told = headers(this, body, (self.settings.webhook_secret,), int(time.time()))
        request = self.client.post(self.settings.webhook).headers(told).body_bytes(body)
        response = await request.build().send()
        assert response.status == 200
        now = datetime.now(UTC)
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE callback_events SET state = 'delivered', attempts = 1, last_tried_at = $2, last_status = 200,"
                " finished_at = $2, body_until = $3 WHERE id = $1",
                callback.callback_id, now, now + timedelta(days=7),
            )  # fmt: skip
            await connection.execute(
                "INSERT INTO timeline (message_id, at, kind, cause, entry) VALUES ($1, $2, 'callback', $3, $4)",
                callback.message_id, now, callback.callback_id, json.dumps({"http_status": 200}).encode(),
            )  # fmt: skip


async def main() -> None:
    settings = Settings.read()
    pool = await open_pool(settings)
    async with ClientBuilder().no_proxy().timeout(timedelta(seconds=10)).build() as client:
        delivery = Delivery(settings, pool, client)
        await consume(settings, "callbacks", "delivery", delivery.on_callback)


if __name__ == "__main__":
    uvloop.run(main())
