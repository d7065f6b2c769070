"""A record that is seen again: what it had led to is published again, with the same ids (DESIGN 5)."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from switchboard.ids import MessageId
from switchboard.lanes.line import in_line
from switchboard.rules.moves import send_before_at
from switchboard.rules.progress import Effects
from switchboard.store import messages as store
from switchboard.store import timeline
from switchboard.store.pool import Connection
from switchboard_router.carrying_out import AttemptKey, Output

#: An attempt that has no more time than this to be claimed is renewed.
SOON: Final = timedelta(seconds=10)


async def replay(connection: Connection, seen: Sequence[tuple[MessageId, str]], now: datetime) -> list[Output]:
    """The outputs that these (message, cause) pairs led to, as far as they can still matter.

    A dispatch is published again only while its attempt is planned and has its slot. One whose time to be claimed ran
    out meanwhile (the broker was away) gets it anew: left to its timer, the next message to the same person would pass.
    One that stands in a line is its drainer's to publish, also if it has its slot: those before it may not be out yet.
    Of a message whose content is purged nothing is published again: that it was purged says that all of it had been.
    """
    if not seen:
        return []
    entries = await timeline.find_causes(connection, [id for id, _ in seen], [cause for _, cause in seen])
    effects = {key: entry.effects for key, entry in entries.items() if entry.effects is not None}
    found = await store.read(connection, {message_id for message_id, _ in effects}, body=True)
    attempts = await store.read_attempts(
        connection, [key for id, cause in effects for key in _tried(id, effects[id, cause])]
    )
    late = [
        (*key, send_before_at(found[key[0]].progress, now))
        for key, attempt in attempts.items()
        if key[0] in found and attempt.view.send_before is not None and attempt.view.send_before < now + SOON
    ]
    renewed = await store.renew(connection, late)
    drainers = await in_line(connection, attempts.keys())
    outputs = []
    for (message_id, _), effect in effects.items():
        message = found.get(message_id)
        if message is None or message.body is None:
            continue
        ours = [key for key in _tried(message_id, effect) if key in attempts and key not in drainers]
        open_views = [(key, attempts[key].view) for key in ours]
        send_before = next(
            (renewed.get(key, view.send_before) for key, view in open_views if view.state == "planned"), None
        )
        outputs.append(Output(message, effect, send_before))
    return outputs


def _tried(message_id: MessageId, effects: Effects) -> list[AttemptKey]:
    attempt = effects.dispatch or effects.redispatch
    return [(message_id, *attempt)] if attempt is not None else []
