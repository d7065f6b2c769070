"""The official Python client manages apps and messages over a real socket, with only its addresses changed."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sinch import SinchClient
from tests.flow.ingress.conftest import KEY, PROJECT, SECRET, Client
from tests.flow.ingress.test_messages import stored

from switchboard.configuration import App
from switchboard.runtime import start_server
from switchboard.store.pool import Pool


@pytest.fixture
async def client(call: Client) -> AsyncIterator[SinchClient]:
    server = await start_server(call.api, "127.0.0.1", 0)
    client = SinchClient(project_id=PROJECT, key_id=KEY, key_secret=SECRET, conversation_region="eu")
    client.configuration.auth_origin = f"http://127.0.0.1:{server.port}"
    client.configuration.conversation_origin = f"http://127.0.0.1:{server.port}"
    yield client
    await server.stop()


async def test_it_manages_apps(client: SinchClient, app: App) -> None:
    apps = client.conversation.apps

    def use() -> None:
        made = apps.create(
            channel_credentials={
                "TELEGRAM": {"token": "1:t"},
                "SMS": {"claimed_identity": "harbour", "token": "t"},
            },
            display_name="By the client",
            dispatch_retention_policy={"retention_type": "MESSAGE_EXPIRE_POLICY", "ttl_days": 3},
        )
        assert made.display_name == "By the client"
        changed = apps.update(app_id=made.id, display_name="Changed")
        assert changed.display_name == "Changed"
        assert changed.dispatch_retention_policy.ttl_days == 3
        read = apps.get(app_id=made.id)
        assert read.display_name == "Changed"
        assert {found.id for found in apps.list().iterator()} == {app.id, made.id}
        apps.delete(app_id=made.id)
        assert [found.id for found in apps.list().iterator()] == [app.id]

    await asyncio.to_thread(use)


async def test_it_reads_changes_and_deletes_messages(client: SinchClient, app: App, pool: Pool) -> None:
    ids = [await stored(pool, app, seconds) for seconds in range(4)]
    messages = client.conversation.messages

    def use() -> None:
        listed = messages.list(app_id=app.id, messages_source="DISPATCH_SOURCE", page_size=3)
        assert [message.id for message in listed.iterator()] == ids[::-1]
        changed = messages.update(message_id=ids[0], metadata="new", messages_source="DISPATCH_SOURCE")
        assert changed.metadata == "new"
        messages.delete(message_id=ids[0], messages_source="DISPATCH_SOURCE")
        left = messages.list(app_id=app.id, messages_source="DISPATCH_SOURCE")
        assert [message.id for message in left.iterator()] == ids[:0:-1]

    await asyncio.to_thread(use)


async def test_it_manages_contacts(client: SinchClient) -> None:
    contacts = client.conversation.contacts

    def use() -> None:
        phone, chat = {"channel": "SMS", "identity": "+46701230001"}, {"channel": "TELEGRAM", "identity": "777000"}
        made = contacts.create(channel_identities=[phone], language="EN_GB", metadata="m")
        assert (made.display_name, made.metadata, made.language) == ("Unknown", "m", "EN_GB")
        assert made.channel_identities[0].identity == "46701230001"
        changed = contacts.update(contact_id=made.id, display_name="Ida", email="i@x")
        assert (changed.display_name, changed.email, changed.metadata) == ("Ida", "i@x", "m")
        assert contacts.get(contact_id=made.id).display_name == "Ida"
        other = contacts.create(channel_identities=[phone, chat], language="UNSPECIFIED")
        assert [found.id for found in contacts.list(page_size=1).iterator()] == [made.id, other.id]
        assert [found.id for found in contacts.list(channel="TELEGRAM", identity="777000").iterator()] == [other.id]
        [conflict] = list(contacts.list_identity_conflicts().iterator())
        assert set(conflict.contact_ids) == {made.id, other.id}
        merged = contacts.merge_contact(destination_id=made.id, source_id=other.id)
        assert [identity.identity for identity in merged.channel_identities] == ["46701230001", "777000"]
        contacts.delete(contact_id=made.id)
        assert list(contacts.list().iterator()) == []

    await asyncio.to_thread(use)
