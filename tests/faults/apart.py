"""An installation on servers of its own that may be killed, with a proxy on every link that may be cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct, structs
from tests.faults.proxy import Proxy
from tests.faults.system import System, behind, system

from switchboard.embedded import EmbeddedKafka, EmbeddedPostgres, free_port
from switchboard.embedded.port import is_free
from switchboard_standalone.development import RECEIVER

#: The links, by what is at their far end.
BROKER: Final = "broker"
DATABASE: Final = "database"
SMSC: Final = "smsc"
BOT_API: Final = "bot api"
WEBHOOK: Final = "webhook"


class Apart(Struct, frozen=True):
    """What a test may hurt."""

    system: System
    kafka: EmbeddedKafka
    postgres: EmbeddedPostgres
    links: dict[str, Proxy]


@asynccontextmanager
async def apart(
    folder: Path,
    own_kafka: Callable[..., EmbeddedKafka],
    own_postgres: Callable[..., EmbeddedPostgres],
    *options: str,
    inject: Path | None = None,
) -> AsyncIterator[Apart]:
    """Start everything. Services reach broker, database, providers and webhook through proxies; the test does not."""
    kafka_port, up_port = free_port(), _two_free_ports()
    postgres = own_postgres()
    async with (
        Proxy(kafka_port) as broker,
        Proxy(postgres.port) as database,
        Proxy(up_port + 1) as bot_api,
        Proxy(up_port + 1) as webhook,
    ):
        kafka = own_kafka(port=kafka_port, advertised_port=broker.port)
        environment = {
            "SWITCHBOARD_POSTGRES_DSN": postgres.dsn,
            "SWITCHBOARD_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "SWITCHBOARD_TOPIC_PARTITIONS": "6",
        }
        there = [
            f"channel-adapter:SWITCHBOARD_TELEGRAM_API_URL=http://{bot_api.address}",
            *(
                f"{service}:{name}={value}"
                for service in ("ingress", "router", "channel-adapter", "callback-delivery")
                for name, value in (
                    ("SWITCHBOARD_POSTGRES_DSN", behind(postgres.dsn, database.port)),
                    ("SWITCHBOARD_KAFKA_BOOTSTRAP", broker.address),
                )
            ),
        ]
        arguments = [part for option in there for part in ("--env", option)]
        async with (
            system(
                folder, "--port", str(up_port), *arguments, *options, environment=environment, inject=inject
            ) as running,
            Proxy(running.home.ports().smpp) as smsc,
        ):
            await _lead_through(running, smsc, webhook)
            links = {BROKER: broker, DATABASE: database, SMSC: smsc, BOT_API: bot_api, WEBHOOK: webhook}
            yield Apart(running, kafka, postgres, links)


async def _lead_through(running: System, smsc: Proxy, webhook: Proxy) -> None:
    """Tell the configuration that SMSC and webhook are where their proxies are."""
    await running.lead_smsc(smsc.port)
    async with running.configuration() as store:
        found = await store.webhook(running.installed.running.webhook_id)
        assert found is not None
        await store.put_webhook(structs.replace(found, target=f"http://{webhook.address}/receiver/{RECEIVER}"))


def _two_free_ports() -> int:
    while True:
        port = free_port()
        if is_free(port + 1):
            return port
