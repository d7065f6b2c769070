"""Whom identities mean, what a merge leaves, and in which order a contact's channels are tried."""

from typing import Any

import pytest

from switchboard.contact import Contact, DuplicatedIdentity
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AppId, ContactId
from switchboard.rules.recipient import Ways, choose_contact, contact_ways, duplicated, merge_patch, merged

SMS, TELEGRAM, RCS, MESSENGER = map(ChannelName, ("SMS", "TELEGRAM", "RCS", "MESSENGER"))
PHONE, CHAT, RICH = ChannelIdentity(SMS, "467"), ChannelIdentity(TELEGRAM, "7"), ChannelIdentity(RCS, "467")
APP, OTHER_APP = AppId("01K07KW4XC9S346Q3D25VT4F5V"), AppId("01K07KW4XC9S346Q3D25VT4F5W")
OLD, YOUNG = ContactId("01A"), ContactId("01B")


@pytest.mark.parametrize(
    ("identities", "holders", "chosen"),
    [
        ([PHONE], {PHONE: [OLD]}, OLD),
        ([PHONE], {}, None),
        ([PHONE, CHAT], {CHAT: [OLD]}, OLD),
        ([CHAT, PHONE], {CHAT: [YOUNG], PHONE: [OLD]}, YOUNG),
        ([PHONE], {PHONE: [YOUNG, OLD]}, OLD),
        ([ChannelIdentity(MESSENGER, "9", APP)], {ChannelIdentity(MESSENGER, "9", OTHER_APP): [OLD]}, None),
    ],
    ids=["a holder", "nobody", "any identity counts", "the first one first", "the oldest holder", "per app"],
)
def test_identities_mean_a_contact(identities, holders, chosen):
    assert choose_contact(identities, holders) == chosen


@pytest.mark.parametrize(
    ("priority", "asked", "active", "order"),
    [
        ((), (), "CHANNEL_UNSPECIFIED", [SMS, TELEGRAM]),
        ((TELEGRAM,), (), "CHANNEL_UNSPECIFIED", [TELEGRAM, SMS]),
        ((SMS,), (), "TELEGRAM", [TELEGRAM, SMS]),
        ((RCS, TELEGRAM), (), "CHANNEL_UNSPECIFIED", [TELEGRAM, SMS]),
        ((), (TELEGRAM,), "SMS", [TELEGRAM]),
        ((), (RCS, SMS), "SMS", [RCS, SMS]),
        ((MESSENGER,), (), "MESSENGER", [SMS, TELEGRAM]),
    ],
    ids=["the app's order", "the contact's priority", "the active channel first", "what the app has not is passed over",
         "the request decides", "even where the app has not the channel", "what the contact has not is passed over"],
)  # fmt: skip
def test_a_contact_is_reached_by_the_active_channel_its_priority_then_the_apps(priority, asked, active, order):
    contact = Contact(OLD, (RICH, CHAT, PHONE), channel_priority=priority)

    assert list(contact_ways(contact, APP, asked, active, (SMS, TELEGRAM, MESSENGER)).order) == order


def test_of_identities_for_single_apps_only_ones_own_is_used():
    theirs, ours = ChannelIdentity(MESSENGER, "1", OTHER_APP), ChannelIdentity(MESSENGER, "2", APP)

    ways = contact_ways(Contact(OLD, (theirs, ours)), APP, (), "CHANNEL_UNSPECIFIED", (MESSENGER,))

    assert ways == Ways((ours,), (MESSENGER,))


def test_a_contact_without_a_channel_of_the_app_leaves_nothing_to_try():
    assert contact_ways(Contact(OLD, (RICH,)), APP, (), "RCS", (SMS,)) == Ways((), (), passed_over=(RCS,))


@pytest.mark.parametrize(
    ("asked", "passed_over"),
    [((), (MESSENGER, RCS)), ((SMS,), (MESSENGER, RCS)), ((RCS,), (MESSENGER,))],
    ids=["nothing asked for", "the app's channel asked for", "a channel asked for is no longer passed over"],
)
def test_what_of_a_contact_is_no_way_is_named(asked, passed_over):
    contact = Contact(OLD, (RICH, CHAT, PHONE), channel_priority=(MESSENGER, SMS))

    assert contact_ways(contact, APP, asked, "CHANNEL_UNSPECIFIED", (SMS, TELEGRAM)).passed_over == passed_over


def test_a_merge_moves_channels_the_destination_does_not_have():
    destination = Contact(OLD, (PHONE,), (SMS,), display_name="Ida", metadata="m")
    source = Contact(
        YOUNG, (ChannelIdentity(SMS, "46799"), CHAT), (TELEGRAM,), "Unknown", "i@x", "crm-1", "other", "SV"
    )

    assert merged(destination, source) == Contact(OLD, (PHONE, CHAT), (SMS, TELEGRAM), "Ida", "i@x", "crm-1", "m", "SV")


def test_identities_of_several_contacts_are_told_with_all_their_holders():
    holders = {PHONE: [YOUNG, OLD], CHAT: [OLD]}

    assert duplicated([CHAT, PHONE, RICH], holders) == (DuplicatedIdentity(SMS, (OLD, YOUNG)),)


#: From RFC 7396, appendix A.
MERGE_PATCHES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ([1, 2], {"a": "b"}, {"a": "b"}),
]


@pytest.mark.parametrize(("target", "patch", "result"), MERGE_PATCHES)
def test_a_merge_patch_removes_by_null_and_merges_objects(target, patch, result):
    assert merge_patch(target, patch) == result


def test_a_merge_takes_a_name_where_the_destination_has_an_automatic_one():
    unnamed, named = Contact(OLD, (PHONE,), display_name="Unknown"), Contact(YOUNG, (CHAT,), display_name="Ida")

    assert merged(unnamed, named).display_name == "Ida"
    assert merged(named, unnamed).display_name == "Ida"
    assert merged(unnamed, Contact(YOUNG, (CHAT,))).display_name == "Unknown"
