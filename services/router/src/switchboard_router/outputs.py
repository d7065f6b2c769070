"""What a decision puts on the topics: callbacks for every endpoint that asked, then dispatches.

The same message, effects and endpoints give the same records with the same ids every time, so a record that is seen
again publishes again what it led to.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Raw

from switchboard.bus import Outgoing
from switchboard.callbacks import bodies
from switchboard.callbacks.endpoint import Endpoint, endpoints_of
from switchboard.channel.manifest import Manifest
from switchboard.configuration import Webhook
from switchboard.identity import ChannelIdentity, ChannelName, keyed_hash
from switchboard.ids import AppId, CallbackId, ProjectId, derive
from switchboard.records import (
    AskCapability,
    CapabilityAnswered,
    DeliverCallback,
    DispatchEvent,
    DispatchMessage,
    MessageAccepted,
    OptOutReceived,
    RetractMessage,
)
from switchboard.rules.progress import CallbackDue
from switchboard.store.messages import Message
from switchboard.topics import CALLBACKS, DISPATCH, INBOUND, MESSAGES_ACCEPTED
from switchboard.trigger import Trigger


class Publications:
    """Makes records for one installation."""

    def __init__(self, topic_prefix: str, hash_key: bytes, manifests: Mapping[ChannelName, Manifest]) -> None:
        """`hash_key` is the installation's key for record keys; `manifests` are its channels."""
        self._prefix = topic_prefix
        #: The installation's key for record keys and hashed captions.
        self.hash_key = hash_key
        self._manifests = manifests
        self._callbacks_topic = CALLBACKS.name(topic_prefix)

    def delivery_callback(self, message: Message, due: CallbackDue, webhooks: Sequence[Webhook]) -> list[Outgoing]:
        """The callbacks of one change of a message to a contact, one for each endpoint that asked for it.

        Nothing is told of a message whose content a submit notification needs and that is purged.
        """
        endpoints = endpoints_of(due.trigger, webhooks, message.envelope.callback_url)
        if not endpoints:
            return []
        body = self._body(message, due)
        if body is None:
            return []
        return [
            self._callback(
                endpoint, message.id, message.project_id, message.app_id, due.trigger, due.sequence, due.event_at, body,
                causes=(due.step, due.submission, due.status or ""),
            )
            for endpoint in endpoints
        ]  # fmt: skip

    def callbacks(
        self,
        trigger: Trigger,
        stream: str,
        project_id: ProjectId,
        app_id: AppId,
        event_at: datetime,
        body: bytes,
        webhooks: Sequence[Webhook],
        *,
        sequence: int = 1,
        callback_url: str = "",
        causes: tuple[str | int, ...] = (),
        near: str = "",
    ) -> list[Outgoing]:
        """The callbacks of one fact, one for each endpoint that asked. `stream` is a ULID: of what it is about.

        `near` is the ULID of the fact itself, where what it is about may be much older.
        """
        return [
            self._callback(endpoint, stream, project_id, app_id, trigger, sequence, event_at, body, causes, near)
            for endpoint in endpoints_of(trigger, webhooks, callback_url)
        ]

    def accepted(self, confirmation: MessageAccepted) -> Outgoing:
        """A message that the service sends by itself."""
        return Outgoing(
            topic=MESSAGES_ACCEPTED.name(self._prefix),
            key=keyed_hash(self.hash_key, confirmation.project_id, *_spelled(confirmation.identities[0])),
            value=MESSAGES_ACCEPTED.encode(confirmation),
            headers=MESSAGES_ACCEPTED.headers(confirmation),
        )

    def retraction(self, message: Message, step: int, submission: int) -> Outgoing:
        """The order to take back what an attempt came to."""
        route_step = message.route.steps[step]
        return self.order(
            RetractMessage(
                message_id=message.id,
                step=step,
                submission=submission,
                app_id=message.app_id,
                account=route_step.account,
                identity=route_step.identity,
                provider_ids=message.progress.ledger.of(step).provider_ids,
            )
        )

    def order(self, order: DispatchEvent | AskCapability | RetractMessage) -> Outgoing:
        """What a channel-adapter is to do besides submitting messages."""
        return Outgoing(
            topic=DISPATCH.name(self._prefix, order.identity.channel),
            key=self._person(order.identity),
            value=DISPATCH.encode(order),
            headers=DISPATCH.headers(order),
        )

    def inbound(self, fact: OptOutReceived | CapabilityAnswered) -> Outgoing:
        """What the router itself found out about a person, in order with what the person does."""
        return Outgoing(
            topic=INBOUND.name(self._prefix),
            key=keyed_hash(self.hash_key, fact.app_id, *_spelled(fact.identity)),
            value=INBOUND.encode(fact),
            headers=INBOUND.headers(fact),
        )

    def dispatch(self, message: Message, step: int, submission: int, send_before: datetime) -> Outgoing | None:
        """The order to submit one attempt. None if the content is purged: then there is nothing to send any more."""
        content = message.content()
        if content is None:
            return None
        route_step = message.route.steps[step]
        order = DispatchMessage(
            message_id=message.id,
            step=step,
            submission=submission,
            project_id=message.project_id,
            app_id=message.app_id,
            account=route_step.account,
            identity=route_step.identity,
            message=content,
            send_before=send_before,
            channel_properties=message.envelope.channel_properties,
            ttl_ends_at=message.progress.ttl_ends_at,
        )
        return Outgoing(
            topic=DISPATCH.name(self._prefix, route_step.channel),
            key=self._person(route_step.identity),
            value=DISPATCH.encode(order),
            headers=DISPATCH.headers(order),
        )

    def _person(self, identity: ChannelIdentity) -> bytes:
        return keyed_hash(self.hash_key, identity.channel, identity.app_id, identity.identity)

    def _callback(
        self,
        endpoint: Endpoint,
        stream: str,
        project_id: ProjectId,
        app_id: AppId,
        trigger: Trigger,
        sequence: int,
        event_at: datetime,
        body: bytes,
        causes: tuple[str | int, ...],
        near: str = "",
    ) -> Outgoing:
        callback = DeliverCallback(
            callback_id=CallbackId(
                derive(near or stream, "callback", trigger, *causes, endpoint.webhook_id or endpoint.target)
            ),
            project_id=project_id,
            app_id=app_id,
            trigger=trigger,
            webhook_id=endpoint.webhook_id,
            target=endpoint.target,
            stream=stream,
            sequence=sequence,
            event_at=event_at,
            body=Raw(body),
        )
        return Outgoing(
            topic=self._callbacks_topic,
            # Hashed: URLs that clients give may carry secrets.
            key=keyed_hash(self.hash_key, endpoint.webhook_id or endpoint.target, stream),
            value=CALLBACKS.encode(callback),
            headers=CALLBACKS.headers(callback),
        )

    def _body(self, message: Message, due: CallbackDue) -> bytes | None:
        identity = self._identity(message, due.step)
        if due.trigger is Trigger.MESSAGE_SUBMIT:
            content = message.content()
            if content is None:
                return None
            return bodies.submit_notification(
                app_id=message.app_id,
                project_id=message.project_id,
                message_id=message.id,
                identity=identity,
                message=content,
                accepted_at=message.accepted_at,
                event_at=due.event_at,
                mode=message.mode,
                metadata=message.envelope.metadata,
                correlation_id=message.envelope.correlation_id,
                contact_id=message.contact_id or "",
                conversation_id=message.conversation_id or "",
            )
        assert due.status is not None
        return bodies.delivery_report(
            app_id=message.app_id,
            project_id=message.project_id,
            message_id=message.id,
            status=due.status,
            identity=identity,
            accepted_at=message.accepted_at,
            event_at=due.event_at,
            mode=message.mode,
            reason=due.reason,
            metadata=message.envelope.metadata,
            channel_metadata=self._channel_metadata(message, due),
            correlation_id=message.envelope.correlation_id,
            contact_id=message.contact_id or "",
            conversation_id=message.conversation_id or "",
        )

    @staticmethod
    def _identity(message: Message, step: int) -> ChannelIdentity:
        if step < len(message.route.steps):
            return message.route.steps[step].identity
        if message.envelope.identities:
            return message.envelope.identities[0]
        return ChannelIdentity(ChannelName("CHANNEL_UNSPECIFIED"), "")

    def _channel_metadata(self, message: Message, due: CallbackDue) -> Mapping[str, str]:
        """What the channel adds: its batch id, the parts if they were asked about, and what its receipts told."""
        manifest = self._manifests.get(self._identity(message, due.step).channel)
        if manifest is None or manifest.report_metadata is None:
            return due.channel_metadata
        keys = manifest.report_metadata
        told: dict[str, str] = {keys.batch_id_key: derive(message.id, "batch", due.step, due.submission)}
        parts = message.progress.ledger.of(due.step).parts
        if parts and keys.parts_property in message.envelope.channel_properties:
            told[keys.parts_key] = str(parts)
        return {**told, **due.channel_metadata}


def _spelled(identity: ChannelIdentity) -> tuple[str, str]:
    return identity.channel, identity.identity
