"""The development project: an app that sends SMS and TELEGRAM through the simulator and tells its receiver all."""

from __future__ import annotations

import secrets
from typing import Final
from uuid import uuid4

import msgspec
from msgspec import structs

import switchboard_channels
from switchboard.channel.registry import manifests
from switchboard.configuration import (
    App,
    ConfigurationStore,
    Credential,
    DispatchRetentionPolicy,
    Webhook,
)
from switchboard.configuration.credential import StaticBearer, TelegramCredentials
from switchboard.embedded.port import LOOPBACK
from switchboard.identity import ChannelName
from switchboard.ids import AppId, ProjectId, WebhookId, mint, random_token
from switchboard.secrets import KeyRing
from switchboard.store.pool import Pool
from switchboard.trigger import Trigger
from switchboard_standalone.home import Development, Home

KEPT_DAYS: Final = 7
SMS: Final = ChannelName("SMS")
TELEGRAM: Final = ChannelName("TELEGRAM")
#: The provider account that is the simulator's SMSC, and the app's number there.
ACCOUNT: Final = "simulator"
NUMBER: Final = "46700000000"
#: The receiver of the simulator that the app's webhook is.
RECEIVER: Final = "app"
_BOT_ID: Final = 700_000_000


def new_development() -> Development:
    """A project nobody has seen before."""
    return Development(
        project_id=ProjectId(str(uuid4())),
        key_id=str(uuid4()),
        key_secret=random_token(),
        app_id=AppId(mint()),
        webhook_id=WebhookId(mint()),
        webhook_secret=random_token(),
        telegram_token=f"{_BOT_ID + secrets.randbelow(10_000_000)}:{random_token(20)}",
        number=NUMBER,
    )


async def seed(home: Home, pool: Pool, keys: KeyRing, *, simulator_url: str, smpp_port: int) -> Development:
    """Make the development project, or bring what is there to the ports of this run. Without simulator no channels.

    What a person changed of the app stays; an app or webhook that was deleted is made anew, under a new id.
    """
    store = ConfigurationStore(pool, keys, manifests(switchboard_channels))
    development = home.development() or new_development()
    await store.put_project(development.project_id, "Development")
    await store.put_access_key(development.key_id, development.project_id, development.key_secret)
    app = await store.app(development.app_id)
    if app is None:
        development = structs.replace(development, app_id=AppId(mint()), webhook_id=WebhookId(mint()))
        app = new_app(development, simulated=bool(simulator_url))
        await store.insert_app(app)
    elif simulator_url and not app.channel_credentials:
        await store.update_app(structs.replace(app, channel_credentials=credentials(development)))
    if simulator_url:
        account = await store.put_account(SMS, ACCOUNT, smsc_settings(smpp_port))
        await store.put_number(account, development.number, development.app_id)
        development = await _point_webhook(store, development, f"{simulator_url}/receiver/{RECEIVER}")
    home.keep_development(development)
    return development


def new_app(development: Development, *, simulated: bool) -> App:
    """The app as it is at first."""
    return App(
        id=development.app_id,
        project_id=development.project_id,
        display_name="Development",
        channel_credentials=credentials(development) if simulated else (),
        dispatch_retention_policy=DispatchRetentionPolicy(ttl_days=KEPT_DAYS),
    )


def credentials(development: Development) -> tuple[Credential, ...]:
    """What the app sends with: SMS first."""
    return (
        Credential(channel=SMS, static_bearer=StaticBearer(claimed_identity=ACCOUNT, token="unused")),
        Credential(channel=TELEGRAM, telegram_credentials=TelegramCredentials(token=development.telegram_token)),
    )


def smsc_settings(port: int) -> bytes:
    """The simulator's SMSC as a provider account. It takes any password, and binds again at once."""
    return msgspec.json.encode(
        {
            "host": LOOPBACK,
            "port": port,
            "system_id": ACCOUNT,
            "password": "password",
            "default_sender": NUMBER,
            "window": 100,
            "messages_per_second": None,
            "first_reconnect_seconds": 0.1,
            "longest_reconnect_seconds": 2.0,
        }
    )


async def _point_webhook(store: ConfigurationStore, development: Development, target: str) -> Development:
    """Keep our webhook at the receiver of this run, whatever port that has; all else about it is the app's."""
    webhook = await store.webhook(development.webhook_id)
    if webhook is None:
        # Deleted, or never made: an id that was used is not used again.
        development = structs.replace(development, webhook_id=WebhookId(mint()))
        webhook = Webhook(
            id=development.webhook_id,
            app_id=development.app_id,
            project_id=development.project_id,
            target=target,
            # All that says something: a message's record comes with the message.
            triggers=tuple(trigger for trigger in Trigger if trigger is not Trigger.RECORD_NOTIFICATION),
            secrets=(development.webhook_secret,),
        )
    elif webhook.target == target or not webhook.target.endswith(f"/receiver/{RECEIVER}"):
        return development
    await store.put_webhook(structs.replace(webhook, target=target))
    return development
