"""Submits over SMPP and takes receipts."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import uvloop
from aiokafka import AIOKafkaProducer
from tests.benchmarks.ordinary.models import Dispatch, Happened
from tests.benchmarks.ordinary.parts import Settings, consume, open_pool, start_producer

from switchboard.store.pool import Pool
from switchboard_channels.sms.link import Answered, Link, LinkTimes, SequenceNumber, connect
from switchboard_channels.sms.pdu import BindTransceiver, DataSm, DeliverSm, DeliverSmResp, SubmitSm, Tag


class Adapter:
    def __init__(self, settings: Settings, pool: Pool, producer: AIOKafkaProducer) -> None:
        self.settings = settings
        self.pool = pool
        self.producer = producer
        self.link: Link | None = None
        #: Set once the outcome of this provider id is recorded and told: its receipt comes after it.
        self.told: dict[str, asyncio.Event] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def on_dispatch(self, value: bytes) -> None:
        dispatch = Dispatch.model_validate_json(value)
        claimed = await self.pool.execute(
            "UPDATE attempts SET state = 'claimed', claimed_at = now(), claimed_by = 'ordinary'"
            " WHERE message_id = $1 AND step = $2 AND submission = $3 AND state = 'planned' AND send_before > now()",
            dispatch.message_id, dispatch.step, dispatch.submission,
        )  # fmt: skip
        if claimed != "UPDATE 1":
            return
        assert self.link is not None
        answer = await self.link.submit(
            SubmitSm(
                source_addr_ton=1, source_addr_npi=1, source_addr="46700000001", dest_addr_ton=1, dest_addr_npi=1,
                destination_addr=dispatch.identity.identity, registered_delivery=1,
                short_message=dispatch.message.text_message.text.encode("latin-1"),
            )
        )  # fmt: skip
        assert isinstance(answer, Answered)
        provider_id = answer.message_id
        now = datetime.now(UTC)
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE attempts SET state = 'finished', finished_at = $4, outcome = $5"
                " WHERE message_id = $1 AND step = $2 AND submission = $3",
                dispatch.message_id, dispatch.step, dispatch.submission, now,
                json.dumps({"type": "accepted", "provider_ids": [provider_id]}).encode(),
            )  # fmt: skip
            await connection.execute(
                "INSERT INTO provider_ids (account, provider_id, message_id, step, submission, part, identity)"
                " VALUES ('bench', $1, $2, $3, $4, 1, $5)",
                provider_id, dispatch.message_id, dispatch.step, dispatch.submission, dispatch.identity.identity,
            )  # fmt: skip
            await connection.execute(
                "INSERT INTO timeline (message_id, at, kind, cause, entry)"
                " VALUES ($1, $2, 'submitted', 'submitted', $3)",
                dispatch.message_id, now, json.dumps({"note": "submit_sm 1/1", "answer": provider_id}).encode(),
            )  # fmt: skip
        await self._publish(dispatch.message_id, "outcome", "QUEUED_ON_CHANNEL", provider_id)
        self.told.setdefault(provider_id, asyncio.Event()).set()

    def on_delivery(self, link: Link, sequence: SequenceNumber, delivery: DeliverSm | DataSm) -> None:
        task = asyncio.create_task(self._take(link, sequence, delivery))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _take(self, link: Link, sequence: SequenceNumber, delivery: DeliverSm | DataSm) -> None:
        provider_id = delivery.tlvs[Tag.RECEIPTED_MESSAGE_ID].rstrip(b"\x00").decode()
        await self.told.setdefault(provider_id, asyncio.Event()).wait()
        del self.told[provider_id]
        message_id = await self.pool.fetchval(
            "SELECT message_id FROM provider_ids WHERE account = 'bench' AND provider_id = $1", provider_id
        )
        await self._publish(message_id, "receipt", "DELIVERED", provider_id)
        link.reply(sequence, DeliverSmResp())

    async def _publish(self, message_id: str, kind: str, status: str, provider_id: str) -> None:
        happened = Happened(
            message_id=message_id, kind=kind, status=status, provider_id=provider_id, at=datetime.now(UTC)
        )
        await self.producer.send_and_wait(
            self.settings.prefix + "attempts", happened.model_dump_json().encode(), key=message_id.encode()
        )


async def main() -> None:
    settings = Settings.read()
    pool = await open_pool(settings)
    adapter = Adapter(settings, pool, await start_producer(settings))
    adapter.link = await connect("127.0.0.1", settings.smsc_port, LinkTimes(window=500), adapter.on_delivery)
    await adapter.link.bind(BindTransceiver("ordinary", "password"))
    await consume(settings, "dispatch", "adapter", adapter.on_dispatch)


if __name__ == "__main__":
    uvloop.run(main())
