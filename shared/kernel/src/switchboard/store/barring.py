"""Channels that must not be tried for a recipient: they left, or the channel said that it cannot reach them.

Costs messages nothing that it cannot matter to: consent is read for apps that have it on, capability where there is
another identity and the channel is one that can tell (ADR 0021).
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from switchboard.channel.manifest import Manifest
from switchboard.configuration import App
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import MessageId
from switchboard.records import MessageAccepted
from switchboard.rules.route import Verdict
from switchboard.store import capabilities, consents
from switchboard.store.pool import Connection

Barred = Mapping[ChannelName, Verdict]


class Recipient(Struct, frozen=True):
    """Whom a message is for, before its route is planned."""

    record: MessageAccepted
    app: App
    identities: Sequence[ChannelIdentity]


async def barred(
    connection: Connection, recipients: Sequence[Recipient], manifests: Mapping[ChannelName, Manifest]
) -> dict[MessageId, Barred]:
    """The barred channels of messages, as far as there are any."""
    found: dict[MessageId, dict[ChannelName, Verdict]] = {}
    wanted = [
        (one, consents.Asked(one.app, identity, one.record.content_type))
        for one in recipients
        # Consent does not stop what answers a keyword.
        if one.app.consent.blocks and not one.record.is_confirmation
        for identity in one.identities
    ]
    if wanted:
        blocked = await consents.blocked(connection, [asked for _, asked in wanted])
        for one, asked in wanted:
            if (one.app.id, asked.identity.identity, asked.content_type) in blocked:
                found.setdefault(one.record.message_id, {})[asked.identity.channel] = Verdict.NOT_OPTED_IN
    telling = {channel for channel, manifest in manifests.items() if manifest.tells_capability}
    doubtful = [
        (one, identity)
        for one in recipients
        if len(one.identities) > 1
        for identity in one.identities
        if identity.channel in telling
    ]
    if doubtful:
        people = {(one.app.id, str(identity.channel), identity.identity) for one, identity in doubtful}
        unreachable = await capabilities.without(connection, people)
        for one, identity in doubtful:
            if (one.app.id, identity.channel, identity.identity) in unreachable:
                found.setdefault(one.record.message_id, {}).setdefault(identity.channel, Verdict.NO_CAPABILITY)
    return dict(found)
