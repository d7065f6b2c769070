"""No text, number or secret stands where it may not (DESIGN 2.8): canaries are sent through everything and looked for.

Texts and identities may be in record values and in rows, which are purged. They may be in no log, metric, record key
or header, and in no timeline, which is what traces are made of. Secrets may be in no row either.
"""

import base64
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from pyreqwest.client import ClientBuilder
from tests.flow.installed import Installed
from tests.flow.vertical.tenant import LONG, Tenant

from switchboard.ids import MessageId, mint
from switchboard.testing import wait_until

TEXT = "canary-4be1f0c7"
NUMBER = "4699887766"
CHAT = "99887766"
METADATA = "canary-metadata-77ab"
#: Delivered, refused, busy, silent, cut, absent, a part refused, a part unanswered, opted out.
SMS_FATES = ("0000", "9901", "9906", "9909", "9912", "9918", "9921", "9923", "9928", "9929")
#: Shown, no such chat, never started, the token refused, broken, busy, silent.
TELEGRAM_FATES = ("0000", "9901", "9902", "9903", "9905", "9906", "9909")


@pytest.fixture(scope="module")
async def sung(app: Tenant) -> list[MessageId]:
    """Canaries in every kind of trouble, each as far as it comes."""
    said = f"{TEXT} {LONG}"
    marks = {"message_metadata": METADATA, "correlation_id": METADATA, "conversation_metadata": {"note": METADATA}}
    ids = [await app.send(said, ("SMS", NUMBER + fate), **marks) for fate in SMS_FATES]
    ids += [await app.send(said, ("TELEGRAM", CHAT + fate), **marks) for fate in TELEGRAM_FATES]
    ids.append(await app.send(said, ("SMS", NUMBER + "9901"), ("TELEGRAM", CHAT + "0000"), **marks))
    await _refused(app)
    broken = await _broken(app)
    for channel, sender in (("SMS", NUMBER + "0000"), ("TELEGRAM", CHAT + "0000")):
        await app.say(channel, sender, said)
        await app.until(partial(app.inbound, sender), f"{channel}: what was written is told")
    for message_id in ids:
        await _went_on(app, message_id)
    await app.until(lambda: TEXT in str(app.callbacks(NUMBER + "0000")), "the canary is heard where it should be")
    return [*ids, broken]


async def test_no_log_holds_a_text_a_number_or_a_secret(app: Tenant, sung: list[MessageId]):
    logs = list(app.installation.home.logs.glob("*.log"))

    assert {log.stem for log in logs} >= {"ingress", "router", "channel-adapter", "callback-delivery"}
    assert _found(_secrets(app) + _personal(), {log.name: log.read_bytes() for log in logs}) == []


async def test_no_metric_holds_a_text_a_number_or_a_secret(app: Tenant, sung: list[MessageId]):
    client = ClientBuilder().no_proxy().build()
    pages: dict[str, bytes] = {}
    async with client:
        for service, url in app.installation.running.urls.items():
            pages[service] = bytes(await (await client.get(f"{url}/metrics").build().send()).bytes())

    assert all(b"# TYPE" in page for page in pages.values())
    assert _found(_secrets(app) + _personal(), pages) == []


async def test_no_record_key_or_header_holds_a_text_or_a_number(app: Tenant, sung: list[MessageId]):
    places = await _records(app.installation)

    assert any("dead-letters" in place for place in places)
    assert any(b"MessageReceived" in place for place in places.values())
    assert _found(_secrets(app) + _personal(), places) == []


async def test_no_timeline_holds_a_text_or_a_number(app: Tenant, sung: list[MessageId]):
    async with app.installation.database() as connection:
        rows = await connection.fetch(
            "SELECT message_id, cause || convert_from(entry, 'UTF8') AS entry FROM timeline WHERE message_id = ANY($1)",
            sung,
        )

    assert {row["message_id"] for row in rows} == set(sung)
    entries = {f"{row['message_id']} {number}": row["entry"].encode() for number, row in enumerate(rows)}
    assert _found(_secrets(app) + _personal(), entries) == []


async def test_no_secret_is_in_clear_in_the_database(app: Tenant, sung: list[MessageId]):
    async with app.installation.database() as connection:
        tables = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname = 'switchboard'"
        )
        rows = {
            name: "\n".join(row["row"] for row in await connection.fetch(f"SELECT t::text AS row FROM {name} t"))
            for name in (table["name"] for table in tables)
        }

    assert {"switchboard.webhooks", "switchboard.apps", "switchboard.access_keys"} <= set(rows)
    written = [*_secrets(app), *(secret.encode().hex() for secret in _secrets(app))]
    assert _found(written, {name: text.encode() for name, text in rows.items()}) == []


def _personal() -> list[str]:
    """What belongs to a person or a message."""
    return [TEXT, NUMBER, CHAT, METADATA]


def _secrets(app: Tenant) -> list[str]:
    running, home = app.installation.running, app.installation.home
    keys = [key.partition(":")[2] for key in home.secret_keys().split(",")]
    basic = base64.b64encode(f"{running.key_id}:{running.key_secret}".encode()).decode()
    return [app.secret, app.token, running.key_secret, running.telegram_token, basic, *keys]


def _found(words: list[str], places: dict[str, bytes]) -> list[str]:
    """Where a word stands: names of places and words' beginnings, nothing more."""
    return [f"{place}: {word[:12]}" for place, content in places.items() for word in words if word.encode() in content]


async def _went_on(app: Tenant, message_id: MessageId) -> None:
    async def is_on() -> bool:
        return len(await app.story(message_id)) > 1

    await wait_until(is_on, 30, f"{message_id} has an outcome")


async def _refused(app: Tenant) -> None:
    """Requests that are turned down, each for another reason."""
    for change in ({"ttl": TEXT}, {"app_id": TEXT}, {"message": {TEXT: TEXT}}, {"correlation_id": METADATA * 20}):
        body = {
            "app_id": app.app_id,
            "recipient": {"identified_by": {"channel_identities": [{"channel": "SMS", "identity": NUMBER + "0000"}]}},
            "message": {"text_message": {"text": TEXT}},
            **change,
        }
        assert (await app.installation.call("POST", "/messages:send", body)).status == 400
    assert (await app.installation.call("POST", "/messages:send", f'{{"{TEXT}'.encode())).status == 400


async def _broken(app: Tenant) -> MessageId:
    """A record nobody can read: it becomes a dead letter, which holds it whole, and its message is told as failed."""
    message_id, installation = MessageId(mint()), app.installation
    ids = {"message_id": message_id, "app_id": app.app_id, "project_id": installation.running.project_id}
    async with AIOKafkaProducer(bootstrap_servers=installation.running.kafka) as producer:
        await producer.send_and_wait(
            f"{installation.running.topic_prefix}messages.accepted.v1",
            f'{{"text": "{TEXT}", "to": "{NUMBER}'.encode(),
            key=b"0123456789abcdef",
            headers=[("type", b"MessageAccepted"), *((name, value.encode()) for name, value in ids.items())],
        )
    await app.reported(message_id, "FAILED")
    return message_id


async def _records(installation: Installed) -> dict[str, bytes]:
    """Key and headers of every record of every topic, by place."""
    prefix, servers = installation.running.topic_prefix, installation.running.kafka
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        topics = await admin.describe_topics([topic for topic in await admin.list_topics() if topic.startswith(prefix)])
    finally:
        await admin.close()
    places = [
        TopicPartition(topic["topic"], partition["partition"]) for topic in topics for partition in topic["partitions"]
    ]
    async with AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        found: dict[str, bytes] = {}
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for lot in (await consumer.getmany(timeout_ms=200)).values():
                found.update(_places(lot))
        return found


def _places(lot: Iterable[Any]) -> Iterator[tuple[str, bytes]]:
    for record in lot:
        headers = b" ".join(name.encode() + b"=" + value for name, value in record.headers)
        place = f"{record.topic}/{record.partition}/{record.offset}"
        yield place, (record.key or b"") + b" " + headers
