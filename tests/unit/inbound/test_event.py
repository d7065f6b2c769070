"""Where an event goes: one channel that carries it, or a refusal that names both."""

import msgspec
import pytest

import switchboard_channels
from switchboard.channel.registry import manifests
from switchboard.content import AppEvent
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey
from switchboard.reason import Reason, ReasonCode
from switchboard.rules.event import plan_event

MANIFESTS = manifests(switchboard_channels)
SMS, TELEGRAM = ChannelName("SMS"), ChannelName("TELEGRAM")
PHONE, CHAT = ChannelIdentity(SMS, "46701230001"), ChannelIdentity(TELEGRAM, "777000")
BOTH = {SMS: AccountKey("SMS:main"), TELEGRAM: AccountKey("app:a:TELEGRAM")}


def event(name):
    return msgspec.json.decode(msgspec.json.encode({name: {}}), type=AppEvent)


@pytest.mark.parametrize(
    ("identities", "order", "identity"),
    [((CHAT,), (), CHAT), ((CHAT, PHONE), (), CHAT), ((PHONE, CHAT), (TELEGRAM,), CHAT)],
)
def test_the_first_channel_carries_it(identities, order, identity):
    planned = plan_event(event("composing_event"), identities, order, BOTH, MANIFESTS)

    assert (planned.identity, planned.refused) == (identity, None)


@pytest.mark.parametrize(
    ("name", "identity", "words"),
    [
        ("composing_event", PHONE, "SMS does not support composing_event."),
        ("composing_end_event", CHAT, "TELEGRAM does not support composing_end_event."),
    ],
)
def test_a_channel_without_the_event_refuses_it_by_name(name, identity, words):
    planned = plan_event(event(name), (identity,), (), BOTH, MANIFESTS)

    assert planned.identity == identity
    assert planned.refused == Reason(ReasonCode.BAD_REQUEST, words)


@pytest.mark.parametrize(
    ("identities", "order", "configured", "code"),
    [
        ((CHAT,), (), {}, ReasonCode.CHANNEL_CONFIGURATION_MISSING),
        ((CHAT,), (), {TELEGRAM: None}, ReasonCode.CHANNEL_BAD_CONFIGURATION),
        ((PHONE,), (TELEGRAM,), BOTH, ReasonCode.NO_CHANNEL_IDENTITY_FOR_CONTACT),
        ((), (), BOTH, ReasonCode.NO_CHANNEL_IDENTITY_FOR_CONTACT),
    ],
)
def test_without_a_way_there_is_a_reason(identities, order, configured, code):
    planned = plan_event(event("composing_event"), identities, order, configured, MANIFESTS)

    assert planned.refused is not None
    assert planned.refused.code is code
