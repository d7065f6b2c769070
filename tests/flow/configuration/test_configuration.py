"""Configuration on a real database: what is written is read back, sealed at rest, and changes are heard of."""

import asyncio
from typing import Any

import msgspec
import pytest
from tests.flow.configuration.conftest import MANIFESTS, PROJECT, SMS, TELEGRAM

from switchboard.channel.contract import Account
from switchboard.channel.errors import NotConfigured
from switchboard.configuration import (
    App,
    CallbackSettings,
    ClientCredentials,
    Configuration,
    ConfigurationStore,
    Conflict,
    Credential,
    Webhook,
)
from switchboard.configuration.cache import Shelf
from switchboard.configuration.credential import StaticBearer, TelegramCredentials
from switchboard.identity import ChannelName
from switchboard.ids import AccountKey, AppId, ProjectId, WebhookId, mint
from switchboard.secrets import KeyRing, Unreadable, is_access_secret
from switchboard.store.pool import Pool
from switchboard.testing import wait_until
from switchboard.trigger import Trigger


def app(**fields: Any) -> App:
    given: dict[str, Any] = {
        "id": AppId(mint()),
        "project_id": PROJECT,
        "display_name": "Harbour notices",
        "channel_credentials": (
            Credential(channel=SMS, static_bearer=StaticBearer("harbour", "sms-token")),
            Credential(channel=TELEGRAM, telegram_credentials=TelegramCredentials("bot-token"), callback_secret="cb"),
        ),
        "callback_settings": CallbackSettings("callback-secret"),
    }
    return App(**(given | fields))


def webhook(app_id: AppId, target: str = "https://a.example/hook", **fields: Any) -> Webhook:
    given: dict[str, Any] = {
        "id": WebhookId(mint()),
        "app_id": app_id,
        "project_id": PROJECT,
        "target": target,
        "triggers": (Trigger.MESSAGE_INBOUND, Trigger.MESSAGE_DELIVERY),
        "secrets": ("wharf-lantern-42",),
        "client_credentials": ClientCredentials("id", "client-secret", "https://a.example/token"),
    }
    return Webhook(**(given | fields))


async def test_an_app_is_read_back_as_it_was_written(store: ConfigurationStore) -> None:
    written = app()
    await store.insert_app(written)

    assert await store.app(written.id) == written
    assert await store.apps(PROJECT) == [written]
    assert await store.apps(ProjectId("another")) == []


async def test_secrets_are_nowhere_in_the_tables(store: ConfigurationStore, pool: Pool) -> None:
    written = app()
    await store.insert_app(written)
    await store.put_webhook(webhook(written.id))
    await store.put_account(SMS, "harbour", b'{"host":"smsc.example","password":"line-password"}')
    await store.put_access_key("key", PROJECT, "a-long-random-access-secret")
    rows = await pool.fetch(
        "SELECT to_jsonb(a)::text || encode(a.credentials, 'escape') AS row FROM switchboard.apps a"
        " UNION ALL SELECT to_jsonb(w)::text || encode(w.secrets, 'escape') FROM switchboard.webhooks w"
        " UNION ALL SELECT to_jsonb(p)::text || encode(p.settings, 'escape') FROM switchboard.provider_accounts p"
        " UNION ALL SELECT to_jsonb(k)::text FROM switchboard.access_keys k"
    )
    everything = "\n".join(row["row"] for row in rows)

    assert len(rows) == 4
    for secret in (
        "sms-token", "bot-token", "callback-secret", "wharf-lantern", "client-secret", "line-password", "long-random",
    ):  # fmt: skip
        assert secret not in everything


async def test_a_sealed_row_put_into_another_does_not_open(store: ConfigurationStore, pool: Pool) -> None:
    first, second = app(), app()
    await store.insert_app(first)
    await store.insert_app(second)
    await pool.execute(
        "UPDATE switchboard.apps SET credentials = (SELECT credentials FROM switchboard.apps WHERE id = $1)"
        " WHERE id = $2",
        first.id, second.id,
    )  # fmt: skip

    with pytest.raises(Unreadable, match=second.id):
        await store.app(second.id)


async def test_an_app_of_an_unknown_project_is_refused(store: ConfigurationStore) -> None:
    with pytest.raises(Conflict, match="project_id"):
        await store.insert_app(app(project_id=ProjectId("nobody")))


async def test_a_deleted_app_takes_its_webhooks_and_numbers_along(store: ConfigurationStore) -> None:
    written, hook = app(), webhook(AppId(""))
    hook = msgspec.structs.replace(hook, app_id=written.id)
    await store.insert_app(written)
    await store.put_webhook(hook)
    account = await store.put_account(SMS, "harbour", b'{"host":"h","password":"p"}')
    await store.put_number(account, "46701", written.id)

    assert await store.delete_app(written.id)
    assert await store.app(written.id) is None
    assert await store.webhook(hook.id) is None
    assert await store.numbers(account) == {}
    assert not await store.delete_app(written.id)
    assert not await store.update_app(written)


async def test_webhooks_are_read_back_in_the_order_they_were_made(store: ConfigurationStore) -> None:
    written = app()
    await store.insert_app(written)
    hooks = tuple(webhook(written.id, f"https://a.example/{number}", id=WebhookId(mint())) for number in range(3))
    hooks = tuple(sorted(hooks, key=lambda hook: hook.id))
    for hook in hooks:
        await store.put_webhook(hook)

    assert await store.webhooks(written.id) == hooks
    assert await store.webhook(hooks[1].id) == hooks[1]


async def test_an_app_has_at_most_five_webhooks_and_one_for_each_target(store: ConfigurationStore) -> None:
    written = app()
    await store.insert_app(written)
    hooks = [webhook(written.id, f"https://a.example/{number}") for number in range(5)]
    for hook in hooks[:4]:
        await store.put_webhook(hook)

    with pytest.raises(Conflict, match="target"):
        await store.put_webhook(webhook(written.id, "https://a.example/1"))
    await store.put_webhook(hooks[4])
    await store.put_webhook(msgspec.structs.replace(hooks[4], triggers=(Trigger.OPT_IN,)))
    with pytest.raises(Conflict, match="at most 5"):
        await store.put_webhook(webhook(written.id, "https://a.example/6"))
    assert await store.delete_webhook(hooks[0].id)
    await store.put_webhook(webhook(written.id, "https://a.example/0"))


async def test_access_keys_are_kept_as_hashes_and_can_be_revoked(
    store: ConfigurationStore, configuration: Configuration
) -> None:
    await store.put_access_key("key", PROJECT, "a-long-random-access-secret")
    key = await wait_until(lambda: configuration.access_key("key"))
    assert key is not None
    assert is_access_secret("key", "a-long-random-access-secret", key.secret_hash)

    await store.revoke_access_key("key")

    async def is_gone() -> bool:
        return await configuration.access_key("key") is None

    await wait_until(is_gone)


async def test_a_secret_that_could_be_guessed_is_refused(store: ConfigurationStore) -> None:
    with pytest.raises(ValueError, match="at least 22"):
        await store.put_access_key("key", PROJECT, "hunter2")


async def test_an_account_with_wrong_settings_is_refused_without_showing_them(store: ConfigurationStore) -> None:
    with pytest.raises(NotConfigured, match="host") as refused:
        await store.put_account(SMS, "harbour", b'{"password":"line-password"}')

    assert "line-password" not in str(refused.value)
    with pytest.raises(NotConfigured, match="Invalid JSON"):
        await store.put_account(SMS, "harbour", b"{")
    with pytest.raises(NotConfigured, match="TELEGRAM"):
        await store.put_account(TELEGRAM, "bot", b"{}")


async def test_an_operators_account_is_found_by_the_apps_claimed_identity(
    store: ConfigurationStore, configuration: Configuration
) -> None:
    written = app()
    await store.insert_app(written)
    assert configuration.account_key(written, SMS) is None

    key = await store.put_account(SMS, "harbour", b'{"host":"smsc.example","password":"p"}')

    assert await wait_until(lambda: configuration.account_key(written, SMS)) == key
    account = await configuration.account(key, written.id)
    assert account is not None
    assert account.settings.host == "smsc.example"
    assert [found.name for found in await configuration.accounts(SMS)] == ["harbour"]
    assert await configuration.accounts(TELEGRAM) == ()


async def test_an_account_that_cannot_be_opened_leaves_the_others_usable(store: ConfigurationStore, pool: Pool) -> None:
    other_ring = ConfigurationStore(pool, KeyRing({"k2": bytes(range(32))}), MANIFESTS)
    await other_ring.put_account(SMS, "lost", b'{"host":"h","password":"p"}')
    await store.put_account(SMS, "harbour", b'{"host":"h","password":"p"}')

    assert [account.name for account in await store.accounts()] == ["harbour"]


async def test_an_apps_own_account_is_given_to_that_app_only(
    store: ConfigurationStore, configuration: Configuration
) -> None:
    written = app()
    await store.insert_app(written)
    key = configuration.account_key(written, TELEGRAM)

    assert key == f"app:{written.id}:TELEGRAM"
    assert await configuration.account(key, written.id) == Account(key, {"token": "bot-token", "callback_secret": "cb"})
    assert await configuration.account(key, AppId("another")) is None
    assert configuration.account_key(written, ChannelName("RCS")) is None
    assert await configuration.account(AccountKey("SMS:nobody"), written.id) is None


async def test_a_number_belongs_to_one_app(store: ConfigurationStore, configuration: Configuration) -> None:
    first, second = app(), app()
    await store.insert_app(first)
    await store.insert_app(second)
    key = await store.put_account(SMS, "harbour", b'{"host":"h","password":"p"}')
    await store.put_number(key, "46701", first.id)
    assert await configuration.app_of_number(key, "46701") == first.id

    await store.put_number(key, "46701", second.id)

    async def is_the_seconds() -> bool:
        return await configuration.app_of_number(key, "46701") == second.id

    await wait_until(is_the_seconds)
    assert await configuration.app_of_number(key, "46702") is None


async def test_changes_are_heard_of(store: ConfigurationStore, configuration: Configuration) -> None:
    written = app()
    assert await configuration.app(written.id) is None

    await store.insert_app(written)
    assert await wait_until(lambda: configuration.app(written.id)) == written
    assert await configuration.webhooks(written.id) == ()

    hook = webhook(written.id)
    await store.put_webhook(hook)
    assert await wait_until(lambda: configuration.webhooks(written.id)) == (hook,)

    await store.update_app(msgspec.structs.replace(written, display_name="New name"))

    async def is_renamed() -> bool:
        found = await configuration.app(written.id)
        return found is not None and found.display_name == "New name"

    await wait_until(is_renamed)


async def test_a_webhook_that_moves_leaves_its_old_app(store: ConfigurationStore, configuration: Configuration) -> None:
    first, second = app(), app()
    await store.insert_app(first)
    await store.insert_app(second)
    hook = webhook(first.id)
    await store.put_webhook(hook)
    assert await wait_until(lambda: configuration.webhooks(first.id)) == (hook,)

    await store.put_webhook(msgspec.structs.replace(hook, app_id=second.id))

    async def has_left() -> bool:
        return await configuration.webhooks(first.id) == ()

    await wait_until(has_left)
    assert [found.id for found in await configuration.webhooks(second.id)] == [hook.id]


async def test_what_is_in_memory_is_answered_without_the_database(
    store: ConfigurationStore, configuration: Configuration, pool: Pool
) -> None:
    written = app()
    told: list[str] = []
    configuration.on_change(told.append)
    await store.insert_app(written)
    # What is read before the change is heard of would be read again.
    await wait_until(lambda: f"apps:{written.id}" in told)
    await configuration.app(written.id)
    await pool.expire_connections()
    taken = [await pool.acquire() for _ in range(3)]  # all that the listening connection leaves

    assert await configuration.app(written.id) == written

    for connection in taken:
        await pool.release(connection)


async def test_everything_is_forgotten_when_the_connection_was_lost(
    store: ConfigurationStore, configuration: Configuration, pool: Pool
) -> None:
    written = app()
    await store.insert_app(written)
    await wait_until(lambda: configuration.app(written.id))
    told: list[str] = []
    configuration.on_change(told.append)
    # A change nobody hears of: the trigger is off, as if the notification was lost with the connection.
    await pool.execute("ALTER TABLE switchboard.apps DISABLE TRIGGER tell")
    await store.update_app(msgspec.structs.replace(written, display_name="New name"))
    await pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await wait_until(lambda: "" in told)

    found = await configuration.app(written.id)
    assert found is not None
    assert found.display_name == "New name"


class Source:
    """Something to read from, that answers when it is told to."""

    def __init__(self) -> None:
        self.reads = 0
        self.go = asyncio.Event()
        self.value: str | None = "first"

    async def read(self, _: str) -> str | None:
        self.reads += 1
        value = self.value
        await self.go.wait()
        return value


async def test_readers_of_one_key_share_one_look() -> None:
    source = Source()
    shelf = Shelf(source.read)
    shelf.hears = True
    readers = [asyncio.create_task(shelf.get("a")) for _ in range(5)]
    source.go.set()

    assert await asyncio.gather(*readers) == ["first"] * 5
    assert await shelf.get("a") == "first"
    assert source.reads == 1


async def test_a_thing_changed_while_it_is_read_is_read_again() -> None:
    source = Source()
    shelf = Shelf(source.read)
    shelf.hears = True
    reader = asyncio.create_task(shelf.get("a"))
    await wait_until(lambda: source.reads == 1)
    source.value = "second"
    shelf.drop("a")
    source.go.set()

    assert await reader == "first"
    assert await shelf.get("a") == "second"


async def test_nothing_is_kept_while_changes_are_not_heard_of() -> None:
    source = Source()
    source.go.set()
    shelf = Shelf(source.read)

    await shelf.get("a")
    await shelf.get("a")

    assert source.reads == 2


async def test_that_there_is_none_is_believed_for_a_while() -> None:
    now = 0.0
    source = Source()
    source.go.set()
    source.value = None
    shelf = Shelf(source.read, clock=lambda: now)
    shelf.hears = True

    assert await shelf.get("a") is None
    assert await shelf.get("a") is None
    assert source.reads == 1
    now = 5.0
    assert await shelf.get("a") is None
    assert source.reads == 2


async def test_a_failed_look_is_not_kept() -> None:
    tries = 0

    async def fails_once(_: str) -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ConnectionError
        return "there"

    shelf = Shelf(fails_once)
    shelf.hears = True

    with pytest.raises(ConnectionError):
        await shelf.get("a")
    assert await shelf.get("a") == "there"
