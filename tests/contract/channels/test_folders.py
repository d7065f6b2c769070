"""What every channel folder keeps: the files, the facts, and an adapter that says what it knows and never raises."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import switchboard_channels
from switchboard.channel import registry
from switchboard.channel.contract import Account, Attempt, InboundPart, SessionHost, WebhookRequest
from switchboard.channel.errors import InvalidWebhook, NotConfigured, Unsupported
from switchboard.channel.manifest import AccountOwner, Connection, Manifest, Support
from switchboard.channel.outcome import FailedForNow, Rejected, Unknown
from switchboard.content import KIND, AppMessage, TextMessage
from switchboard.http.client import HttpAnswer, NoAnswer, NotSent
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey, AppId, AttemptId, MessageId
from switchboard.status import Status

CHANNELS = registry.manifests(switchboard_channels)
REQUEST_CHANNELS = [name for name, manifest in CHANNELS.items() if manifest.connection is Connection.REQUEST]
SESSION_CHANNELS = [name for name, manifest in CHANNELS.items() if manifest.connection is Connection.SESSION]
MESSAGE = MessageId("01K06TM94A7E3S3E28JT97KB6C")
ALL = pytest.mark.parametrize("channel", list(CHANNELS))


@ALL
def test_a_folder_has_the_files_every_channel_has(channel: ChannelName) -> None:
    folder = Path(switchboard_channels.__path__[0]) / channel.lower()
    exchange = "send.py" if channel in REQUEST_CHANNELS else "session.py"
    missing = [
        name
        for name in ("__init__.py", "manifest.py", "adapter.py", "render.py", "codes.py", "README.md", exchange)
        if not (folder / name).is_file()
    ]

    assert missing == []


@ALL
def test_a_manifest_names_only_content_there_is(channel: ChannelName) -> None:
    content = CHANNELS[channel].content

    assert set(content) <= {*KIND.values(), "channel_specific_message"}
    assert content["text_message"] is Support.NATIVE


@ALL
def test_a_manifest_s_receipts_are_what_receipts_can_say(channel: ChannelName) -> None:
    assert CHANNELS[channel].receipts <= {Status.DELIVERED, Status.READ, Status.FAILED}


@ALL
def test_a_manifest_says_what_an_account_is_made_of(channel: ChannelName) -> None:
    manifest = CHANNELS[channel]

    assert (manifest.account_settings is not None) == (manifest.owner is AccountOwner.OPERATOR)
    assert manifest.credentials.fields
    assert any(field.secret for field in manifest.credentials.fields)
    assert manifest.send_timeout_seconds > 0


@ALL
@pytest.mark.parametrize("text", ["", "x y", "@", "12ab", "\u0661"])
def test_what_is_no_identity_is_refused_with_what_is_expected(channel: ChannelName, text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        CHANNELS[channel].normal_identity(text)


@ALL
def test_a_normal_identity_stays_as_it_is(channel: ChannelName) -> None:
    once = CHANNELS[channel].normal_identity("+46701230001" if channel in ("SMS", "MMS", "RCS") else "777000")

    assert CHANNELS[channel].normal_identity(once) == once


@ALL
def test_a_plain_text_is_one_unit_or_more(channel: ChannelName) -> None:
    render = registry.renderers(switchboard_channels)[channel]

    assert render.units(AppMessage(text_message=TextMessage("Hello")), {}) == 1


@ALL
def test_a_message_can_be_looked_at_before_it_is_sent(channel: ChannelName) -> None:
    render = registry.renderers(switchboard_channels)[channel]
    preview = render.preview(AppMessage(text_message=TextMessage("Hello")), "46701230001", MESSAGE, {}, None)

    assert preview.units == len(preview.submissions) == 1
    assert b"Hello" in msgspec.json.encode(preview)


@ALL
def test_content_that_no_channel_carries_is_refused_by_name(channel: ChannelName) -> None:
    render = registry.renderers(switchboard_channels)[channel]
    for look in (
        lambda: render.units(AppMessage(), {}),
        lambda: render.preview(AppMessage(), "46701230001", MESSAGE, {}, None),
    ):
        with pytest.raises(Unsupported) as refused:
            look()
        assert refused.value.reason.description


@ALL
def test_adapters_share_no_state(channel: ChannelName) -> None:
    first, second = (registry.adapter(switchboard_channels, channel) for _ in range(2))

    assert first is not second
    assert first.manifest == second.manifest == CHANNELS[channel]


class Failing:
    """A provider that fails in one way."""

    def __init__(self, failure: Any) -> None:
        self._failure = failure

    async def request(self, *_: Any, **__: Any) -> HttpAnswer:
        if isinstance(self._failure, Exception):
            raise self._failure
        return HttpAnswer(self._failure, {}, b"<html>")


def attempt(channel: ChannelName, message: AppMessage) -> Attempt:
    identity = ChannelIdentity(channel, "777000")
    return Attempt(MESSAGE, AttemptId(f"{MESSAGE}.0.1"), AppId("app"), identity, message)


def account(manifest: Manifest) -> Account:
    secrets = {field.name: f"secret-{field.name}".replace("-", "") for field in manifest.credentials.fields}
    return Account(AccountKey("account"), secrets)


@pytest.mark.parametrize("channel", REQUEST_CHANNELS)
@pytest.mark.parametrize(
    ("failure", "outcomes"),
    [
        (NotSent("refused"), FailedForNow),
        (NoAnswer("cut"), Unknown),
        (200, Unknown),
        (502, FailedForNow),
        (401, Rejected),
    ],
)
async def test_a_provider_s_failure_is_an_honest_outcome(channel: ChannelName, failure: Any, outcomes: type) -> None:
    adapter: Any = registry.adapter(switchboard_channels, channel)
    message = AppMessage(text_message=TextMessage("Between us"))
    result = await adapter.send(attempt(channel, message), account(adapter.manifest), Failing(failure))

    assert isinstance(result.outcome, outcomes)
    assert result.exchanges
    assert "Between us" not in repr(result)
    assert "secret" not in repr(result)


@pytest.mark.parametrize("channel", REQUEST_CHANNELS)
async def test_content_a_channel_cannot_carry_is_rejected_not_dropped(channel: ChannelName) -> None:
    adapter: Any = registry.adapter(switchboard_channels, channel)
    result = await adapter.send(attempt(channel, AppMessage()), account(adapter.manifest), Failing(500))

    assert isinstance(result.outcome, Rejected)


@pytest.mark.parametrize("channel", REQUEST_CHANNELS)
async def test_missing_credentials_are_named_not_guessed(channel: ChannelName) -> None:
    adapter: Any = registry.adapter(switchboard_channels, channel)
    message = AppMessage(text_message=TextMessage("Hello"))
    with pytest.raises(NotConfigured):
        await adapter.send(attempt(channel, message), Account(AccountKey("a")), Failing(500))


@pytest.mark.parametrize("channel", REQUEST_CHANNELS)
@pytest.mark.parametrize("body", [b"", b"{}", b"\xff"])
def test_a_webhook_without_proof_is_refused(channel: ChannelName, body: bytes) -> None:
    adapter: Any = registry.adapter(switchboard_channels, channel)
    request = WebhookRequest("POST", "/", {}, {}, body, datetime.now(UTC))
    with pytest.raises(InvalidWebhook):
        adapter.parse_webhook(request, account(adapter.manifest))


class Nobody(SessionHost):
    """A host that hears nothing."""

    async def receive(self, facts: Any) -> None:
        raise AssertionError

    async def collect(self, part: InboundPart) -> Any:
        raise AssertionError


@pytest.mark.parametrize("channel", SESSION_CHANNELS)
def test_a_session_needs_its_account_s_settings(channel: ChannelName) -> None:
    adapter: Any = registry.adapter(switchboard_channels, channel)
    with pytest.raises(NotConfigured):
        adapter.session(Account(AccountKey("a")), Nobody(), None)
    with pytest.raises(NotConfigured):
        adapter.max_binds(Account(AccountKey("a")))
