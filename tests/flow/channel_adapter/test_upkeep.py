"""What nothing asks for any more goes, long messages that stay incomplete are told, and providers know our address."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from switchboard.channel.contract import Account, Fact, InboundFact, InboundPart
from switchboard.channel.errors import NotConfigured
from switchboard.configuration import App, Credential
from switchboard.configuration.credential import TelegramCredentials
from switchboard.content import ContactMessage, TextMessage
from switchboard.http.client import HttpClient, NotSent
from switchboard.http.pooled import PooledHttpClient
from switchboard.ids import AccountKey, AppId, mint
from switchboard.testing import wait_until
from switchboard_channel_adapter.registration import Registration
from switchboard_channel_adapter.upkeep import Upkeep

from .conftest import AT_NOON, PROJECT, TELEGRAM, World


class PutTogether:
    """Says how many parts there were."""

    def put_together(self, parts: Sequence[InboundPart], account: Account) -> Fact:
        text = ContactMessage(text_message=TextMessage(f"{len(parts)} of {parts[0].total}"))
        return InboundFact(f"group:{parts[0].group}", "777000", text, AT_NOON)


async def test_old_rows_go_and_young_ones_stay(world: World) -> None:
    for name, age in (("old", timedelta(days=100)), ("young", timedelta(hours=1))):
        await world.pool.execute(
            "INSERT INTO switchboard.receipts"
            " VALUES ('a', $1, 'DELIVERED', '{}', '', switchboard.now() - $2::interval)",
            name, age,
        )  # fmt: skip
        await world.pool.execute(
            "INSERT INTO switchboard.inbound_seen VALUES ('a', $1, 'm', switchboard.now() - $2::interval)",
            name, age,
        )  # fmt: skip
        await world.pool.execute(
            "INSERT INTO switchboard.postbacks VALUES ('a', $1, 'p', switchboard.now() - $2::interval)",
            name, age,
        )  # fmt: skip
    await Upkeep(world.pool, world.configuration, {}, world.receipts).sweep()

    for table, column in (("receipts", "provider_id"), ("inbound_seen", "provider_id"), ("postbacks", "key")):
        rows = await world.pool.fetch(f"SELECT {column} AS name FROM switchboard.{table}")
        assert [row["name"] for row in rows] == ["young"]


class OperatorAccounts:
    """The configuration, with one provider account that its app owns: parts come to provider accounts only."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def accounts(self, channel: str) -> Any:
        return [Account(self._world.account)]

    async def account(self, key: AccountKey, app_id: AppId) -> Account:
        return Account(key)


async def test_parts_whose_others_never_come_are_told_and_dropped(world: World) -> None:
    told: list[Fact] = []

    class Told:
        async def take(self, account: AccountKey, facts: Sequence[Fact]) -> None:
            told.extend(facts)

    old = datetime(2026, 1, 1, tzinfo=UTC)
    now = await world.pool.fetchval("SELECT switchboard.now()")
    facts = world.facts()
    for group, number, total, at in (
        ("torn", 1, 3, old),
        ("torn", 3, 3, old),
        ("whole", 1, 1, old),
        ("young", 1, 2, now),
    ):
        await facts.collect(world.account, InboundPart(group, number, total, b"x", at))
    channels: Any = {TELEGRAM: (PutTogether(), Told())}
    configuration: Any = OperatorAccounts(world)
    await Upkeep(world.pool, configuration, channels, world.receipts).sweep()

    left = await world.pool.fetch("SELECT part_group FROM switchboard.inbound_parts")
    assert [fact.message.text_message for fact in told if isinstance(fact, InboundFact)] == [TextMessage("2 of 3")]
    assert [row["part_group"] for row in left] == ["young"]


class Provider:
    """A channel whose provider is told where to post."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.errors: list[Exception] = []

    async def register_webhook(self, account: Account, url: str, http: HttpClient) -> None:
        self.told.append((account.credentials["token"], url))
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture
async def provider(world: World) -> AsyncIterator[Provider]:
    provider, http = Provider(), PooledHttpClient()
    registration = Registration(
        {TELEGRAM: provider}, world.configuration, world.pool, http, public_url="https://in.test/"
    )
    registration.start()
    yield provider
    await registration.stop()
    await http.close()


async def test_every_app_is_registered_at_the_start(world: World, provider: Provider) -> None:
    await wait_until(lambda: provider.told)

    assert provider.told == [("1:token", f"https://in.test/channels/TELEGRAM/{world.app_id}")]


async def test_an_app_that_is_made_or_changed_is_registered(world: World, provider: Provider) -> None:
    await wait_until(lambda: provider.told)
    app_id = AppId(mint())
    credential = Credential(channel=TELEGRAM, telegram_credentials=TelegramCredentials("2:new"))
    app = App(id=app_id, project_id=PROJECT, display_name="Second", channel_credentials=(credential,))
    await world.configuration.store.insert_app(app)

    await wait_until(lambda: ("2:new", f"https://in.test/channels/TELEGRAM/{app_id}") in provider.told)


@pytest.mark.parametrize(("error", "again"), [(NotSent("away"), True), (NotConfigured("refused"), False)])
async def test_a_provider_that_is_away_is_told_again(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, again: bool
) -> None:
    monkeypatch.setattr("switchboard_channel_adapter.registration._AGAIN_SECONDS", 0.05)
    provider, http = Provider(), PooledHttpClient()
    provider.errors = [error]
    registration = Registration(
        {TELEGRAM: provider}, world.configuration, world.pool, http, public_url="https://in.test"
    )
    registration.start()
    await wait_until(lambda: len(provider.told) >= (2 if again else 1))
    await registration.stop()
    await http.close()

    assert len(provider.told) == (2 if again else 1)
