"""Who a message is for, or from: which contact an identity means, and which of its channels are tried in which order.

In CONVERSATION mode every message has a contact (conversation-api 4.4). Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from switchboard.contact import UNKNOWN_NAME, Contact, DuplicatedIdentity
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AppId, ContactId

#: What of a contact a merge takes from the source where the destination has nothing.
_OPTIONAL: Final = {
    "display_name": UNKNOWN_NAME,
    "email": "",
    "external_id": "",
    "metadata": "",
    "language": "UNSPECIFIED",
}


def choose_contact(
    identities: Sequence[ChannelIdentity], holders: Mapping[ChannelIdentity, Sequence[ContactId]]
) -> ContactId | None:
    """The contact that identities mean: the oldest holder of the first identity that anybody holds. None: nobody."""
    for identity in identities:
        if held_by := holders.get(identity):
            return min(held_by)
    return None


class Ways(Struct, frozen=True):
    """The ways to somebody: identities, one for each channel, and which channels are tried in which order."""

    identities: tuple[ChannelIdentity, ...]
    #: Empty: the order of the identities.
    order: tuple[ChannelName, ...] = ()
    #: Channels of a contact that nobody asked for and that are no way: the app or the contact does not have them.
    passed_over: tuple[ChannelName, ...] = ()


def identities_for(contact: Contact, app_id: AppId) -> dict[ChannelName, ChannelIdentity]:
    """The identities of a contact that an app may use, the first one of each channel."""
    has: dict[ChannelName, ChannelIdentity] = {}
    for identity in contact.channel_identities:
        if identity.app_id in ("", app_id):
            has.setdefault(identity.channel, identity)
    return has


def contact_ways(
    contact: Contact,
    app_id: AppId,
    asked: Sequence[ChannelName],
    active_channel: str,
    app_channels: Sequence[ChannelName],
) -> Ways:
    """The ways of one app to a contact (conversation-api 11.4).

    `asked` is the request's `channel_priority_order`. Without one: the active channel of the active conversation, the
    contact's own priority, then its other channels in the order of the app's, `app_channels`. Channels that the app
    does not have are passed over: nobody asked for them.
    """
    has = identities_for(contact, app_id)
    theirs = [channel for channel in app_channels if channel in has]
    preferred = (ChannelName(active_channel), *contact.channel_priority, *theirs)
    order = dict.fromkeys(asked or (channel for channel in preferred if channel in theirs))
    mentioned = (*contact.channel_priority, *(identity.channel for identity in contact.channel_identities))
    return Ways(
        tuple(has[channel] for channel in dict.fromkeys((*order, *theirs)) if channel in has),
        tuple(order),
        tuple(dict.fromkeys(channel for channel in mentioned if channel not in order and channel not in theirs)),
    )


def merged(destination: Contact, source: Contact) -> Contact:
    """The destination with what the source adds (conversation-api 4.4, `:merge`).

    Identities move for channels the destination does not have, and those channels go to the end of its priority;
    other fields are taken only where the destination's is empty. An automatic name is none.
    """
    has = {identity.channel for identity in destination.channel_identities}
    moved = tuple(identity for identity in source.channel_identities if identity.channel not in has)
    priority = dict.fromkeys((*destination.channel_priority, *(identity.channel for identity in moved)))
    return replace(
        destination,
        channel_identities=destination.channel_identities + moved,
        channel_priority=tuple(priority),
        **{
            name: getattr(source, name)
            for name, empty in _OPTIONAL.items()
            if getattr(destination, name) in ("", empty) and getattr(source, name)
        },
    )


def duplicated(
    identities: Iterable[ChannelIdentity], holders: Mapping[ChannelIdentity, Sequence[ContactId]]
) -> tuple[DuplicatedIdentity, ...]:
    """Which of these identities several contacts hold."""
    return tuple(
        DuplicatedIdentity(identity.channel, tuple(sorted(holders[identity])))
        for identity in identities
        if len(holders.get(identity, ())) > 1
    )


def merge_patch(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396): null removes a key, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged_object = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged_object.pop(key, None)
        else:
            merged_object[key] = merge_patch(merged_object.get(key), value)
    return merged_object
