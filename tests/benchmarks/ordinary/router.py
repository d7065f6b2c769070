"""Plans messages, follows their attempts, tells callbacks."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import uvloop
from aiokafka import AIOKafkaProducer
from tests.benchmarks.ordinary.models import (
    Accepted,
    Callback,
    DeliveryReport,
    Dispatch,
    Happened,
    Identity,
    ReportBody,
)
from tests.benchmarks.ordinary.parts import Settings, consume, open_pool, start_producer

from switchboard.store.pool import Connection, Pool

LANE = "dispatch:ordinary"


class Router:
    def __init__(self, settings: Settings, pool: Pool, producer: AIOKafkaProducer) -> None:
        self.settings = settings
        self.pool = pool
        self.producer = producer

    async def on_accepted(self, value: bytes) -> None:
        accepted = Accepted.model_validate_json(value)
        request = accepted.request
        identity = request.recipient.identified_by.channel_identities[0]
        now = datetime.now(UTC)
        send_before = now + timedelta(seconds=30)
        async with self.pool.acquire() as connection, connection.transaction():
            if await connection.fetchval("SELECT 1 FROM messages WHERE id = $1", accepted.message_id):
                return
            await connection.execute(
                "INSERT INTO messages (id, project_id, app_id, direction, mode, accepted_at, channel, identity,"
                " envelope, body, route, phase, status, status_at, expires_at, claim_due_at, next_due)"
                " VALUES ($1, $2, $3, 'TO_CONTACT', 'DISPATCH', $4, $5, $6, $7, $8, $9, 'SENDING', 'ACCEPTED', $10,"
                " $11, $12, $12)",
                accepted.message_id, accepted.project_id, request.app_id, accepted.accepted_at, identity.channel,
                identity.identity, request.model_dump_json().encode(), request.message.model_dump_json().encode(),
                json.dumps([identity.model_dump()]).encode(), now, now + timedelta(hours=72), send_before,
            )  # fmt: skip
            await connection.execute(
                "UPDATE lanes SET in_flight = in_flight + 1, tat = greatest(tat, $2) WHERE id = $1", LANE, now
            )
            await connection.execute(
                "INSERT INTO attempts (message_id, step, submission, app_id, account, channel, identity, state,"
                " send_before, lanes) VALUES ($1, 0, 1, $2, 'bench', $3, $4, 'planned', $5, $6)",
                accepted.message_id, request.app_id, identity.channel, identity.identity, send_before, [LANE],
            )  # fmt: skip
            await self._tell_timeline(connection, accepted.message_id, "planned", now)
        dispatch = Dispatch(
            message_id=accepted.message_id, step=0, submission=1, app_id=request.app_id, identity=identity,
            message=request.message, send_before=send_before,
        )  # fmt: skip
        await self._publish("dispatch", identity.identity, dispatch.model_dump_json())

    async def on_happened(self, value: bytes) -> None:
        happened = Happened.model_validate_json(value)
        is_outcome = happened.kind == "outcome"
        now = datetime.now(UTC)
        async with self.pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                "SELECT app_id, project_id, channel, identity, accepted_at, envelope, phase FROM messages"
                " WHERE id = $1 FOR UPDATE",
                happened.message_id,
            )
            if row is None or row["phase"] == "FINAL":
                return
            await connection.execute(
                "UPDATE messages SET phase = $2, status = $3, status_at = $4, claim_due_at = NULL, horizon_at = $5,"
                " next_due = $5, final = $6, final_at = $7 WHERE id = $1",
                happened.message_id, "SUBMITTED" if is_outcome else "FINAL", happened.status, now,
                now + timedelta(hours=72), not is_outcome, None if is_outcome else now,
            )  # fmt: skip
            if is_outcome:
                await connection.execute(
                    "UPDATE attempts SET lanes = '{}' WHERE message_id = $1 AND step = 0 AND submission = 1",
                    happened.message_id,
                )
                await connection.execute("UPDATE lanes SET in_flight = in_flight - 1 WHERE id = $1", LANE)
            await self._tell_timeline(connection, happened.message_id, happened.kind, now)
        envelope = json.loads(row["envelope"])
        body = ReportBody(
            app_id=row["app_id"],
            project_id=row["project_id"],
            accepted_time=row["accepted_at"],
            event_time=happened.at,
            message_delivery_report=DeliveryReport(
                message_id=happened.message_id,
                status=happened.status,
                channel_identity=Identity(channel=row["channel"], identity=row["identity"]),
                metadata=envelope["message_metadata"],
            ),
            correlation_id=envelope["correlation_id"],
        )
        callback = Callback(
            callback_id=f"{happened.message_id}-{happened.status}", message_id=happened.message_id,
            app_id=row["app_id"], project_id=row["project_id"], sequence=1 if is_outcome else 2,
            event_at=happened.at, body=body.model_dump_json(),
        )  # fmt: skip
        await self._publish("callbacks", happened.message_id, callback.model_dump_json())

    async def _publish(self, topic: str, key: str, value: str) -> None:
        await self.producer.send_and_wait(self.settings.prefix + topic, value.encode(), key=key.encode())

    async def _tell_timeline(self, connection: Connection, message_id: str, kind: str, at: datetime) -> None:
        await connection.execute(
            "INSERT INTO timeline (message_id, at, kind, cause, entry) VALUES ($1, $2, $3, $3, $4)",
            message_id, at, kind, json.dumps({"note": kind}).encode(),
        )  # fmt: skip


async def main() -> None:
    settings = Settings.read()
    pool = await open_pool(settings)
    router = Router(settings, pool, await start_producer(settings))
    async with asyncio.TaskGroup() as group:
        group.create_task(consume(settings, "accepted", "router.accepted", router.on_accepted))
        group.create_task(consume(settings, "attempts", "router.attempts", router.on_happened))


if __name__ == "__main__":
    uvloop.run(main())
