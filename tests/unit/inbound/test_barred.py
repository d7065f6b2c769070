"""Channels that must not be tried leave the route with their reason."""

import pytest

import switchboard_channels
from switchboard.channel.registry import manifests
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey
from switchboard.reason import ReasonCode
from switchboard.rules.route import Candidate, Verdict, plan_route

MANIFESTS = manifests(switchboard_channels)
SMS, TELEGRAM = ChannelName("SMS"), ChannelName("TELEGRAM")
PHONE, CHAT = ChannelIdentity(SMS, "46701230001"), ChannelIdentity(TELEGRAM, "777000")
BOTH = {SMS: AccountKey("SMS:main"), TELEGRAM: AccountKey("app:a:TELEGRAM")}


@pytest.mark.parametrize("verdict", [Verdict.NOT_OPTED_IN, Verdict.NO_CAPABILITY])
def test_a_barred_channel_is_left_out_and_the_next_one_is_tried(verdict):
    route = plan_route((CHAT, PHONE), (), BOTH, MANIFESTS, barred={TELEGRAM: verdict})

    assert [step.identity for step in route.steps] == [PHONE]
    assert route.candidates == (Candidate(TELEGRAM, verdict), Candidate(SMS, Verdict.KEPT))


@pytest.mark.parametrize(
    ("barred", "code"),
    [
        ({SMS: Verdict.NOT_OPTED_IN}, ReasonCode.RECIPIENT_NOT_OPTED_IN),
        ({SMS: Verdict.NO_CAPABILITY}, ReasonCode.RECIPIENT_NOT_REACHABLE),
    ],
)
def test_without_another_channel_the_message_fails_with_the_reason(barred, code):
    route = plan_route((PHONE,), (), BOTH, MANIFESTS, barred=barred)

    assert route.steps == ()
    assert route.empty_because is not None
    assert route.empty_because.code is code


def test_what_is_wrong_with_the_app_is_said_first():
    route = plan_route((PHONE,), (), {}, MANIFESTS, barred={SMS: Verdict.NOT_OPTED_IN})

    assert route.empty_because is not None
    assert route.empty_because.code is ReasonCode.CHANNEL_CONFIGURATION_MISSING
