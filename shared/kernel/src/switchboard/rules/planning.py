"""From an accepted message to its route: one rule for the router, which sends, and `messages:explain`, which tells."""

from collections.abc import Mapping
from typing import Final

from switchboard.channel.manifest import Manifest
from switchboard.configuration import App
from switchboard.contact import Contact
from switchboard.identity import ChannelName
from switchboard.ids import AccountKey
from switchboard.reason import Reason, ReasonCode
from switchboard.records import MessageAccepted
from switchboard.rules.recipient import Ways, contact_ways
from switchboard.rules.route import Route, Verdict, plan_route

#: Why a message to a contact that does not exist is not sent.
NO_CONTACT: Final = Reason(ReasonCode.CONTACT_NOT_FOUND, "There is no such contact.")


def usable_channels(app: App, manifests: Mapping[ChannelName, Manifest]) -> list[ChannelName]:
    """The channels that an app has and this installation too, in the app's order."""
    return [channel for channel in app.credentials if channel in manifests]


def ways_of(
    record: MessageAccepted,
    app: App,
    contact: Contact | None,
    active_channel: str,
    manifests: Mapping[ChannelName, Manifest],
) -> Ways:
    """The ways a message may go. `contact` is the one it names by its id, with their `active_channel`."""
    if contact is None:
        return Ways(record.identities, record.channel_priority_order)
    usable = usable_channels(app, manifests)
    return contact_ways(contact, app.id, record.channel_priority_order, active_channel, usable)


def route_of(
    record: MessageAccepted,
    app: App,
    ways: Ways,
    accounts: Mapping[ChannelName, AccountKey | None],
    manifests: Mapping[ChannelName, Manifest],
    barred: Mapping[ChannelName, Verdict],
) -> Route:
    """The route of a message whose ways and bars are known. `accounts` are those of the app's channels."""
    return plan_route(
        ways.identities,
        ways.order,
        accounts,
        manifests,
        app.fallback_wait_seconds,
        record.channel_steps,
        barred,
        ways.passed_over,
    )
