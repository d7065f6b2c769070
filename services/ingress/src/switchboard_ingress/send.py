"""`messages:send`: validate, mint the id, produce, answer when the broker has it (DESIGN 7)."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct
from prometheus_client import Counter

from switchboard.bus import Outgoing, Producer
from switchboard.bus.errors import NotStarted, PublishFailed
from switchboard.callbacks.compact import timestamp
from switchboard.channel.manifest import Manifest
from switchboard.configuration import App, Configuration
from switchboard.crash import crash_point
from switchboard.identity import CONTRACT_CHANNELS, ChannelIdentity, ChannelName, keyed_hash
from switchboard.ids import AppId, ContactId, MessageId, ProjectId, is_ulid, mint, time_of
from switchboard.records import AcceptedRecord, CapabilityAsked, EventAccepted, MessageAccepted, ProcessingMode
from switchboard.rules.consent import ContentType
from switchboard.rules.planning import usable_channels
from switchboard.store.pool import TRANSIENT_ERRORS
from switchboard.topics import MESSAGES_ACCEPTED
from switchboard.validation import Violation, validate
from switchboard_ingress.body import Body
from switchboard_ingress.checks import (
    MAX_CONVERSATION_METADATA,
    MAX_CORRELATION_ID,
    MAX_METADATA,
    at_most,
    check_id,
    check_identity,
    check_properties,
    check_url,
    json_at_most,
    read_ttl,
)
from switchboard_ingress.errors import Answer, BadRequest, NotFound, Unavailable, success
from switchboard_ingress.idempotency import IdempotencyKeys
from switchboard_ingress.limits import WaitingCounts
from switchboard_ingress.requests import MetadataStrategy, ProcessingStrategy, Queue, Recipient, SendRequest
from switchboard_ingress.settings import UnconfiguredChannel
from switchboard_ingress.steps import check_steps

log = structlog.get_logger(__name__)

_accepted: Final = Counter("switchboard_messages_accepted", "Messages the broker has, and clients were told so.")
_unconfirmed: Final = Counter("switchboard_messages_not_confirmed", "Sends answered 503 because the broker was silent.")

#: A W3C trace context. Anything else is not carried on.
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_body: Final = Body(SendRequest)


class SendRules(Struct, frozen=True):
    """What decides about a send besides the request and its app."""

    manifests: Mapping[ChannelName, Manifest]
    unconfigured_channel: UnconfiguredChannel = UnconfiguredChannel.REJECT


class SendPolicy(Struct, frozen=True):
    """How sends are carried out."""

    topic_prefix: str
    #: Keys the hash that keeps one person's records in order.
    hash_key: bytes
    produce_seconds: float
    max_pending: int
    strict_ids: bool = True


class Sending:
    """Takes messages from clients to the broker."""

    def __init__(
        self,
        configuration: Configuration,
        producer: Producer,
        keys: IdempotencyKeys,
        waiting: WaitingCounts,
        rules: SendRules,
        policy: SendPolicy,
    ) -> None:
        self._configuration = configuration
        self._producer = producer
        self._keys = keys
        self._waiting = waiting
        self._rules = rules
        self._policy = policy
        self._topic = MESSAGES_ACCEPTED.name(policy.topic_prefix)
        self._pending = 0

    async def send(self, project_id: ProjectId, raw: bytes, idempotency_key: str = "", traceparent: str = "") -> Answer:
        """Accept one message. Raises ApiError; what it answers is durable."""
        request = _body.read(raw)
        app = await find_app(self._configuration, project_id, request.app_id, strict=self._policy.strict_ids)
        self._waiting.check(app.id)
        message_id = MessageId(mint())
        trace = traceparent if _TRACEPARENT.fullmatch(traceparent) else ""
        record = accept(request, app, self._rules, message_id, time_of(message_id), trace)
        if idempotency_key:
            return await self._send_once(record, idempotency_key, raw)
        await self._produce(record)
        return _answer(record)

    async def _send_once(self, record: MessageAccepted, key: str, raw: bytes) -> Answer:
        claim = await self._keys.claim(record.project_id, key, raw, record.message_id, record.accepted_at)
        record = msgspec.structs.replace(record, message_id=claim.message_id, accepted_at=claim.accepted_at)
        if not claim.published:
            # Again with the first id: if the broker had it, the router knows a replay by that.
            await self._produce(record)
            try:
                await self._keys.mark_published(record.project_id, key)
            except TRANSIENT_ERRORS as error:
                log.warning("a published key is not marked", message_id=record.message_id, error=type(error).__name__)
        return _answer(record)

    async def _produce(self, record: MessageAccepted) -> None:
        key = _order_key(self._policy.hash_key, record.project_id, record.identities, record.contact_id)
        await self.produce(record, key, record.message_id)
        _accepted.inc()

    async def accept_other(self, record: EventAccepted | CapabilityAsked, id: MessageId) -> None:
        """Hand over what is no message, in order with the person's messages. Raises Unavailable."""
        key = _order_key(self._policy.hash_key, record.project_id, record.identities, record.contact_id)
        await self.produce(record, key, id)

    async def produce(self, record: AcceptedRecord, key: bytes, id: MessageId) -> None:
        """Hand a record to the broker; when this returns it is durable. Raises Unavailable: not confirmed."""
        if self._pending >= self._policy.max_pending:
            _unconfirmed.inc()
            raise Unavailable("Too many messages wait for the broker: not confirmed, try again.")
        outgoing = Outgoing(
            self._topic,
            key,
            MESSAGES_ACCEPTED.encode(record),
            MESSAGES_ACCEPTED.headers(record),
        )
        self._pending += 1
        try:
            crash_point("ingress.before_produce")
            await self._producer.publish((outgoing,), timeout_seconds=self._policy.produce_seconds)
            crash_point("ingress.after_produce")
        except (PublishFailed, NotStarted) as error:
            _unconfirmed.inc()
            log.warning("a message is not confirmed", message_id=id, why=str(error))
            raise Unavailable("The broker does not answer: not confirmed, try again.") from error
        finally:
            self._pending -= 1


async def find_app(configuration: Configuration, project_id: ProjectId, app_id: str, *, strict: bool) -> App:
    """The app of that id in the project. Raises BadRequest for what is no id, NotFound."""
    if not app_id:
        raise BadRequest(Violation("app_id", "is required"))
    if strict and not is_ulid(app_id):
        raise BadRequest(Violation("app_id", "value must be a ULID"))
    app = None if "\x00" in app_id else await configuration.app(AppId(app_id))
    if app is None or app.project_id != project_id:
        raise NotFound("There is no such app in the project.")
    return app


def accept(
    request: SendRequest,
    app: App,
    rules: SendRules,
    message_id: MessageId,
    accepted_at: datetime,
    traceparent: str = "",
) -> MessageAccepted:
    """The record of a valid request. Pure. Raises BadRequest with everything that is wrong with it."""
    found: list[Violation] = []
    mode = _mode(request, app)
    identities = identities_of(request.recipient, mode, app, rules, found)
    order = _order(request, app, rules, found)
    found += _prefixed("message", validate(request.message, order or [identity.channel for identity in identities]))
    found += json_at_most("conversation_metadata", request.conversation_metadata, MAX_CONVERSATION_METADATA)
    ttl_seconds = _collect(found, "ttl", read_ttl, request.ttl)
    # A contact's channels are not known here; they are among the app's.
    possible = order or [identity.channel for identity in identities] or usable_channels(app, rules.manifests)
    found += check_steps(request.channel_steps, possible, rules.manifests, app.fallback_wait_seconds)
    found += check_properties(request.channel_properties, rules.manifests)
    found += at_most("message_metadata", request.message_metadata, MAX_METADATA)
    found += at_most("correlation_id", request.correlation_id, MAX_CORRELATION_ID)
    found += check_url("callback_url", request.callback_url) if request.callback_url else ()
    if found:
        raise BadRequest(*found)
    return MessageAccepted(
        message_id=message_id,
        project_id=app.project_id,
        app_id=app.id,
        accepted_at=accepted_at,
        message=request.message,
        mode=mode,
        identities=identities,
        contact_id=None if request.recipient.contact_id is None else ContactId(request.recipient.contact_id),
        channel_priority_order=order,
        channel_properties=request.channel_properties,
        metadata=request.message_metadata or "",
        conversation_metadata=request.conversation_metadata,
        patches_metadata=request.conversation_metadata_update_strategy is MetadataStrategy.MERGE_PATCH,
        correlation_id=request.correlation_id or "",
        callback_url=request.callback_url or "",
        high_priority=request.queue is Queue.HIGH_PRIORITY,
        ttl_seconds=ttl_seconds,
        channel_steps=request.channel_steps,
        on_unknown=request.on_unknown,
        traceparent=traceparent,
        content_type=request.message_content_type or ContentType.CONTENT_UNKNOWN,
    )


def _mode(request: SendRequest, app: App) -> ProcessingMode:
    if request.processing_strategy is ProcessingStrategy.DISPATCH_ONLY:
        return ProcessingMode.DISPATCH
    return app.processing_mode


def identities_of(
    recipient: Recipient, mode: ProcessingMode, app: App, rules: SendRules, found: list[Violation]
) -> tuple[ChannelIdentity, ...]:
    """A recipient's identities in their channels' own spelling. What is wrong with them is added to `found`."""
    if (recipient.contact_id is None) == (recipient.identified_by is None):
        found.append(Violation("recipient", "exactly one of contact_id and identified_by is expected"))
    if recipient.contact_id is not None and mode is ProcessingMode.DISPATCH:
        found.append(Violation("recipient.contact_id", "is not known in DISPATCH mode: identified_by is expected"))
    elif recipient.contact_id is not None:
        found += check_id("recipient.contact_id", recipient.contact_id)
    if recipient.identified_by is None:
        return ()
    where = "recipient.identified_by.channel_identities"
    given = recipient.identified_by.channel_identities
    if not given:
        found.append(Violation(where, "at least one is required"))
    identities = []
    seen = set()
    for number, identity in enumerate(given):
        place = f"{where}[{number}]"
        channel = ChannelName(identity.channel)
        found += check_channel(f"{place}.channel", channel, app, rules)
        if channel in seen:
            found.append(Violation(f"{place}.channel", f"{channel} has its identity already"))
        seen.add(channel)
        manifest = rules.manifests.get(channel)
        spelled = identity.identity
        if wrong := list(check_identity(f"{place}.identity", spelled)):
            found += wrong
        elif manifest:
            spelled = _collect(found, f"{place}.identity", manifest.normal_identity, spelled) or ""
        scope = app.id if manifest and manifest.app_scoped else ""
        identities.append(ChannelIdentity(channel, spelled, scope))
    return tuple(identities)


def _order(request: SendRequest, app: App, rules: SendRules, found: list[Violation]) -> tuple[ChannelName, ...]:
    order = tuple(map(ChannelName, request.channel_priority_order))
    for number, channel in enumerate(order):
        found += check_channel(f"channel_priority_order[{number}]", channel, app, rules)
        if channel in order[:number]:
            found.append(Violation(f"channel_priority_order[{number}]", f"{channel} is there already"))
    return order


def check_channel(field: str, channel: ChannelName, app: App, rules: SendRules) -> Iterator[Violation]:
    """A channel must be one of the contract, and by default one of the app's."""
    if channel not in CONTRACT_CHANNELS:
        yield Violation(field, "unknown channel")
    elif rules.unconfigured_channel is UnconfiguredChannel.REJECT:
        if channel not in app.credentials:
            yield Violation(field, f"{channel} is not configured in the app")
        elif channel not in rules.manifests:
            yield Violation(field, f"{channel} is not installed here")


def _collect(found: list[Violation], field: str, read: Callable[[Any], Any], value: Any) -> Any:
    """What `read` makes of a value; a ValueError becomes a violation."""
    try:
        return read(value)
    except ValueError as error:
        found.append(Violation(field, str(error)))
        return None


def _prefixed(prefix: str, violations: list[Violation]) -> Iterator[Violation]:
    for violation in violations:
        yield Violation(f"{prefix}.{violation.field}".removesuffix("."), violation.description)


def _order_key(
    hash_key: bytes, project_id: ProjectId, identities: tuple[ChannelIdentity, ...], contact_id: ContactId | None
) -> bytes:
    if contact_id is not None:
        return keyed_hash(hash_key, project_id, "contact", contact_id)
    first = identities[0]
    return keyed_hash(hash_key, project_id, first.channel, first.identity)


def _answer(record: MessageAccepted) -> Answer:
    return success({"message_id": record.message_id, "accepted_time": timestamp(record.accepted_at)})
