"""The folder keeps the channel contract."""

import switchboard_channels
from switchboard.channel.contract import Session, SessionAdapter
from switchboard.channel.manifest import AccountOwner, Connection
from switchboard.channel.registry import adapter, manifests, renderers
from switchboard.content import AppMessage, TextMessage
from switchboard.identity import ChannelName
from switchboard_channels.sms.adapter import SmsAdapter
from switchboard_channels.sms.manifest import MANIFEST
from switchboard_channels.sms.session import SmppSession

from .desk import Desk, Lease, account

SMS = ChannelName("SMS")

#: Checked by the type checker: what we make is what the host expects.
_ADAPTER: type[SessionAdapter] = SmsAdapter


def test_the_registry_finds_the_channel() -> None:
    assert manifests(switchboard_channels)[SMS] is MANIFEST
    assert isinstance(adapter(switchboard_channels, SMS), SmsAdapter)
    assert renderers(switchboard_channels)[SMS].units(AppMessage(text_message=TextMessage("Hi")), {}) == 1


def test_the_manifest_says_how_the_host_runs_it() -> None:
    assert (MANIFEST.owner, MANIFEST.connection) == (AccountOwner.OPERATOR, Connection.SESSION)
    assert MANIFEST.account_settings is not None
    assert MANIFEST.normal_identity("+46701230001") == "46701230001"
    assert MANIFEST.native_ttl
    assert not MANIFEST.deduplicates


async def test_a_session_does_nothing_before_it_runs() -> None:
    made: Session = SmsAdapter().session(account(1), Desk(), Lease())

    assert isinstance(made, SmppSession)
    assert not made.is_bound
    assert made.free_slots == 0


def test_every_setting_of_an_account_is_explained_and_the_password_is_secret() -> None:
    assert MANIFEST.account_settings is not None
    schema = MANIFEST.account_settings.model_json_schema()
    unexplained = {"connect_timeout_seconds", "bind_timeout_seconds"}

    assert schema["properties"]["password"]["writeOnly"]
    assert {name for name, field in schema["properties"].items() if "description" not in field} <= unexplained
