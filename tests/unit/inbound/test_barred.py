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


def test_without_another_channel_nothing_is_sent_to_somebody_who_left():
    route = plan_route((PHONE,), (), BOTH, MANIFESTS, barred={SMS: Verdict.NOT_OPTED_IN})

    assert route.steps == ()
    assert route.empty_because is not None
    assert route.empty_because.code is ReasonCode.RECIPIENT_NOT_OPTED_IN


@pytest.mark.parametrize(
    ("identities", "order", "barred", "tried"),
    [
        ((CHAT,), (), {TELEGRAM: Verdict.NO_CAPABILITY}, [CHAT]),
        ((CHAT, PHONE), (TELEGRAM,), {TELEGRAM: Verdict.NO_CAPABILITY}, [CHAT]),
        ((CHAT, PHONE), (), {TELEGRAM: Verdict.NO_CAPABILITY, SMS: Verdict.NOT_OPTED_IN}, [CHAT]),
        ((CHAT, PHONE), (), {TELEGRAM: Verdict.NO_CAPABILITY, SMS: Verdict.NO_CAPABILITY}, [CHAT, PHONE]),
    ],
    ids=["the only identity", "the only one asked for", "the person left the other", "all say the same"],
)
def test_what_a_channel_said_does_not_count_while_no_other_is_left(identities, order, barred, tried):
    route = plan_route(identities, order, BOTH, MANIFESTS, barred=barred)

    assert [step.identity for step in route.steps] == tried


def test_what_is_wrong_with_the_app_is_said_first():
    route = plan_route((PHONE,), (), {}, MANIFESTS, barred={SMS: Verdict.NOT_OPTED_IN})

    assert route.empty_because is not None
    assert route.empty_because.code is ReasonCode.CHANNEL_CONFIGURATION_MISSING
