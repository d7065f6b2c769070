"""How long contents are kept. Pure."""

from datetime import UTC, datetime, timedelta
from typing import Final

from switchboard.configuration import App
from switchboard.configuration.app import RetentionType
from switchboard.records import ProcessingMode

#: Nothing ends by itself then: what is kept until its conversation expires, or until it is deleted by request.
FOREVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


def body_until(app: App, mode: ProcessingMode, accepted_at: datetime) -> datetime | None:
    """Until when a message's content is kept (conversation-api 12.2).

    None: only until the message is final (retention 0, in dispatch mode only).
    """
    if mode is ProcessingMode.DISPATCH:
        days = app.dispatch_retention_policy.ttl_days
        return accepted_at + timedelta(days=days) if days else None
    policy = app.retention_policy
    if policy.retention_type is RetentionType.MESSAGE_EXPIRE_POLICY:
        return accepted_at + timedelta(days=policy.ttl_days)
    return FOREVER
