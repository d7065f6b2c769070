"""A configuration on a fresh database, with two invented channels: one of each kind of owner."""

from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel, ConfigDict, SecretStr

from switchboard.channel.manifest import AccountOwner, Connection, CredentialSpec, Manifest
from switchboard.configuration import Configuration, ConfigurationStore
from switchboard.identity import ChannelName, normal_msisdn
from switchboard.ids import ProjectId
from switchboard.secrets import KeyRing
from switchboard.store.pool import Pool, open_pool

PROJECT = ProjectId("5a0d1c3e-7b44-4f0e-9f2d-2f6d5a8c1b90")
SMS, TELEGRAM = ChannelName("SMS"), ChannelName("TELEGRAM")


class LineSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    host: str
    password: SecretStr


def manifest(channel: ChannelName, owner: AccountOwner, settings: type[BaseModel] | None = None) -> Manifest:
    return Manifest(
        channel=channel,
        title=channel,
        owner=owner,
        connection=Connection.REQUEST,
        credentials=CredentialSpec("x", ()),
        normal_identity=normal_msisdn,
        content={},
        account_settings=settings,
    )


MANIFESTS = {
    SMS: manifest(SMS, AccountOwner.OPERATOR, LineSettings),
    TELEGRAM: manifest(TELEGRAM, AccountOwner.APP),
}


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await open_pool(database, size=4, service="test")
    yield pool
    await pool.close()


@pytest.fixture
async def store(pool: Pool) -> ConfigurationStore:
    store = ConfigurationStore(pool, KeyRing({"k1": bytes(32)}), MANIFESTS)
    await store.put_project(PROJECT, "Harbour")
    return store


@pytest.fixture
async def configuration(store: ConfigurationStore) -> AsyncIterator[Configuration]:
    configuration = Configuration(store)
    await configuration.start()
    yield configuration
    await configuration.stop()
