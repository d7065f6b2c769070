"""Channels that must not be tried for a recipient: they left, or the channel said that it cannot reach them.

Costs messages nothing that it cannot matter to: consent is read for apps that have it on, capability where a route
has another channel and the channel is one that can tell (ADR 0021).
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from switchboard.configuration import App
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import MessageId
from switchboard.records import MessageAccepted
from switchboard.rules.consent import ContentType
from switchboard.rules.route import Verdict
from switchboard.store import capabilities
from switchboard.store.pool import Connection
from switchboard_router import consent
from switchboard_router.context import RouterContext

Barred = Mapping[ChannelName, Verdict]


class Recipient(Struct, frozen=True):
    """Whom a message is for, and what is known of it before its route is planned."""

    message_id: MessageId
    app: App
    identities: Sequence[ChannelIdentity]
    content_type: ContentType = ContentType.CONTENT_UNKNOWN
    #: Consent does not stop it: it answers a keyword.
    is_confirmation: bool = False


def recipient(record: MessageAccepted, app: App | None, identities: Sequence[ChannelIdentity]) -> Recipient | None:
    """Whom a record is for. None: nothing can bar it."""
    if app is None:
        return None
    return Recipient(record.message_id, app, identities, record.content_type, record.is_confirmation)


async def barred(
    context: RouterContext, connection: Connection, recipients: Sequence[Recipient | None]
) -> dict[MessageId, Barred]:
    """The barred channels of messages, as far as there are any."""
    asked = [one for one in recipients if one is not None]
    found: dict[MessageId, dict[ChannelName, Verdict]] = {}
    wanted = [
        (one, identity, consent.Asked(one.app, identity, one.content_type))
        for one in asked
        if one.app.consent.blocks and not one.is_confirmation
        for identity in one.identities
    ]
    if wanted:
        blocked = await consent.blocked(connection, [item for _, _, item in wanted])
        for one, identity, item in wanted:
            if (one.app.id, identity.identity, item.content_type) in blocked:
                found.setdefault(one.message_id, {})[identity.channel] = Verdict.NOT_OPTED_IN
    doubtful = [
        (one, identity)
        for one in asked
        if len(one.identities) > 1
        for identity in one.identities
        if identity.channel in context.channels_that_tell
    ]
    if doubtful:
        people = {(one.app.id, str(identity.channel), identity.identity) for one, identity in doubtful}
        unreachable = await capabilities.without(connection, people)
        for one, identity in doubtful:
            if (one.app.id, identity.channel, identity.identity) in unreachable:
                found.setdefault(one.message_id, {}).setdefault(identity.channel, Verdict.NO_CAPABILITY)
    return dict(found)
