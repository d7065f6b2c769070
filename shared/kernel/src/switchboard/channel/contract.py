"""What an adapter is given and what it gives back.

Request channels implement `RequestAdapter`: one call an attempt, webhooks parsed by a pure function. Connection
channels implement `SessionAdapter`: the host opens their sessions under leases and is handed what they hear.
The adapter never retries, never decides, never stores: it submits, and says what it knows.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct, field

from switchboard.channel.manifest import Manifest
from switchboard.channel.outcome import Outcome
from switchboard.content import AppEvent, AppMessage, ContactEvent, ContactMessage, ContactMessageEvent
from switchboard.http.client import HttpClient
from switchboard.identity import ChannelIdentity
from switchboard.ids import AccountKey, AppId, AttemptId, MessageId
from switchboard.reason import Reason
from switchboard.status import Status


class Account(Struct, frozen=True):
    """What a channel sends through, with its secrets in clear. Never logged."""

    key: AccountKey
    #: The app's credential object (APP channels), by field name.
    credentials: Mapping[str, str] = field(default_factory=dict)
    #: The operator's settings (OPERATOR channels): an instance of the manifest's `account_settings`.
    settings: Any = None

    def __repr__(self) -> str:
        return f"Account({self.key!r})"


class Attempt(Struct, frozen=True):
    """One submission to make: everything `render` and `send` may look at."""

    message_id: MessageId
    attempt_id: AttemptId
    app_id: AppId
    identity: ChannelIdentity
    message: AppMessage
    channel_properties: Mapping[str, str] = field(default_factory=dict)
    #: Whole seconds the message may still live, for providers that take a TTL. None: no TTL was asked for.
    ttl_seconds_left: int | None = None


class Exchange(Struct, frozen=True, omit_defaults=True):
    """One request to a provider and its answer, redacted: for the timeline, the trace and support."""

    #: What was called, without secrets: `sendMessage`, `submit_sm 1/2`.
    operation: str
    #: The provider's code for how it went: `200`, `ESME_ROK`, `timeout`.
    answer: str
    started_at: datetime
    finished_at: datetime
    #: The provider's own words, without text or identities of people.
    detail: str = ""


class SendResult(Struct, frozen=True):
    """An outcome and how it came about."""

    outcome: Outcome
    exchanges: tuple[Exchange, ...] = ()


class ReceiptFact(Struct, frozen=True, tag="receipt"):
    """The provider tells more about something it took."""

    #: Every spelling under which the outcome may have recorded the id, canonical first (channel-providers 1.2.4).
    provider_ids: tuple[str, ...]
    #: DELIVERED, READ or FAILED. Intermediate reports are not facts.
    status: Status
    event_at: datetime
    #: Whose message it was, in the channel's spelling; "" if the provider does not say. Must match where given.
    identity: str = ""
    reason: Reason | None = None
    #: Our attempt id, on channels whose provider echoes it.
    attempt_id: AttemptId | None = None
    channel_metadata: dict[str, str] = field(default_factory=dict)


class InboundFact(Struct, frozen=True, tag="inbound"):
    """A person wrote."""

    #: The provider's id of the message, unique per account: what duplicates are known by.
    provider_id: str
    identity: str
    message: ContactMessage
    event_at: datetime
    #: The number or id written to. On OPERATOR channels it decides which app gets the message.
    sender_id: str = ""
    channel_metadata: dict[str, str] = field(default_factory=dict)
    #: The provider's id of the message answered; the host turns it into `reply_to` or the choice's message.
    answers: str = ""
    #: The host's key of the postback that was pressed, where it was too long to travel (`KeepsPostbacks`).
    postback_key: str = ""


class OptOutFact(Struct, frozen=True, tag="opt_out"):
    """A person blocked or left us, told by the channel itself."""

    provider_id: str
    identity: str
    event_at: datetime
    #: The number or id of ours it is about. On OPERATOR channels it decides which app is told.
    sender_id: str = ""


class OptInFact(Struct, frozen=True, tag="opt_in"):
    """A person came back, told by the channel itself."""

    provider_id: str
    identity: str
    event_at: datetime
    #: The number or id of ours it is about. On OPERATOR channels it decides which app is told.
    sender_id: str = ""


class UnsupportedFact(Struct, frozen=True, tag="unsupported"):
    """Something from the provider that has no mapping. Kept raw."""

    provider_id: str
    payload: str
    event_at: datetime
    identity: str = ""
    #: The number or id of ours it is about. On OPERATOR channels it decides which app is told.
    sender_id: str = ""


class EventFact(Struct, frozen=True, tag="event"):
    """A person did something besides writing: exactly one of the two events."""

    provider_id: str
    identity: str
    event_at: datetime
    contact_event: ContactEvent | None = None
    contact_message_event: ContactMessageEvent | None = None
    #: The number or id it was done to. On OPERATOR channels it decides which app is told.
    sender_id: str = ""
    #: The provider's id of the message a reaction is about; the host turns it into the message's id.
    about: str = ""


class ChannelEventFact(Struct, frozen=True, tag="channel_event"):
    """Something happened to the account itself, e.g. its quality rating changed."""

    provider_id: str
    #: The provider's own name of it, in upper case.
    event_type: str
    event_at: datetime
    #: A JSON object.
    additional_data: dict[str, Any] = field(default_factory=dict)


Fact = ReceiptFact | InboundFact | OptOutFact | OptInFact | UnsupportedFact | EventFact | ChannelEventFact


class WebhookRequest(Struct, frozen=True):
    """What a provider posted to us, untouched."""

    method: str
    path: str
    query: Mapping[str, str]
    #: Lower-case names.
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime


class WebhookAnswer(Struct, frozen=True):
    """What a webhook held, and what to answer once it is durable."""

    facts: tuple[Fact, ...] = ()
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    #: Calls the provider expects soon after (Telegram's answerCallbackQuery). Best effort, after the answer.
    follow_ups: tuple[Callable[[HttpClient], Any], ...] = ()


class RequestAdapter(Protocol):
    """A channel with one HTTP exchange an attempt."""

    manifest: Manifest

    async def send(self, attempt: Attempt, account: Account, http: HttpClient) -> SendResult:
        """Submit once. Never raises for what a provider does: that is an outcome."""
        ...

    def parse_webhook(self, request: WebhookRequest, account: Account) -> WebhookAnswer:
        """Verify over the raw bytes, then parse. Raises InvalidWebhook. Pure."""
        ...


@runtime_checkable
class KeepsPostbacks(Protocol):
    """A channel whose buttons are too small for every postback: the host keeps the long ones."""

    def postbacks(self, attempt: Attempt) -> Mapping[str, str]:
        """The postbacks to keep before the attempt is sent, by key. Pure; never raises."""
        ...


@runtime_checkable
class RegistersWebhooks(Protocol):
    """A channel whose provider is told by a call where to post."""

    async def register_webhook(self, account: Account, url: str, http: HttpClient) -> None:
        """Tell the provider. Raises NotConfigured where it refuses, NotSent or NoAnswer where it is away."""
        ...


@runtime_checkable
class Retracts(Protocol):
    """A request channel that can take back what it sent (`manifest.can_retract`)."""

    async def retract(
        self, provider_ids: Sequence[str], identity: ChannelIdentity, account: Account, http: HttpClient
    ) -> tuple[Exchange, ...]:
        """Try to take it back, once. Never raises for what a provider does."""
        ...


@runtime_checkable
class SendsEvents(Protocol):
    """A request channel that carries app events (`manifest.events`)."""

    async def send_event(
        self, event: AppEvent, identity: ChannelIdentity, account: Account, http: HttpClient
    ) -> SendResult:
        """Submit once. Never raises for what a provider does: that is an outcome."""
        ...


class Capability(Struct, frozen=True):
    """What a channel says about one identity."""

    #: CAPABILITY_FULL, CAPABILITY_PARTIAL, NO_CAPABILITY; CAPABILITY_UNKNOWN: it could not tell now.
    status: str
    #: The channel's names of what it can do, with CAPABILITY_PARTIAL.
    features: tuple[str, ...] = ()
    #: Why it could not tell.
    reason: Reason | None = None


@runtime_checkable
class TellsCapability(Protocol):
    """A request channel that can say whether somebody can be reached (`manifest.tells_capability`)."""

    async def capability(self, identity: ChannelIdentity, account: Account, http: HttpClient) -> Capability:
        """Ask the provider once. Never raises for what it does. May be asked again."""
        ...


class InboundPart(Struct, frozen=True):
    """One part of a long message from a person, before the others are there."""

    #: Who wrote to whom under which reference: what belongs together.
    group: str
    number: int
    total: int
    content: bytes
    received_at: datetime


class SessionHost(Protocol):
    """What the host does for a session. Returning means: durable."""

    async def receive(self, facts: Sequence[Fact]) -> None:
        """Store and publish facts. The session says yes to its provider only after this returned; if it raises, no."""
        ...

    async def collect(self, part: InboundPart) -> Sequence[InboundPart]:
        """Store a part. Returns all parts of its group in order, each time the group is whole; else nothing."""
        ...


class BindLease(Protocol):
    """The right to hold one bind of an account, over all instances."""

    #: Set when the lease was lost (the database is away, another took it): close the bind at once.
    lost: asyncio.Event


class Session(Protocol):
    """One live connection of a connection channel."""

    async def run(self) -> None:
        """Connect, stay connected, reconnect with back-off. Returns when the lease is lost; cancelled, it unbinds."""
        ...

    @property
    def is_bound(self) -> bool:
        """Whether it can send now."""
        ...

    @property
    def free_slots(self) -> int:
        """How many submissions it would write without waiting: its window and rate."""
        ...

    async def send(self, attempt: Attempt) -> SendResult:
        """Submit once, all parts. Never raises for what a provider does. Written in call order."""
        ...


class SessionAdapter(Protocol):
    """A connection channel."""

    manifest: Manifest

    def max_binds(self, account: Account) -> int:
        """How many binds the account allows over all instances."""
        ...

    def session(self, account: Account, host: SessionHost, lease: BindLease) -> Session:
        """Make one session. Nothing happens before `run`. Raises NotConfigured."""
        ...


@runtime_checkable
class PutsTogether(Protocol):
    """A connection channel that can make something of a long message whose last parts never came."""

    def put_together(self, parts: Sequence[InboundPart], account: Account) -> Fact:
        """The fact to publish of the parts that are there. Raises NotConfigured."""
        ...
