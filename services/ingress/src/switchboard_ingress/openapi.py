"""The API as an OpenAPI 3.1 document, made from the types that read the requests and write the answers."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from switchboard.configuration.app import (
    CallbackSettings,
    DispatchRetentionPolicy,
    Enabled,
    RateLimits,
    ReportFallback,
    ReportView,
    RetentionPolicy,
    RetrySettings,
)
from switchboard.configuration.credential import Credential, CredentialState
from switchboard.configuration.types import ClientCredentials, TargetType
from switchboard.contact import Contact
from switchboard.conversation import Conversation
from switchboard.records import ProcessingMode
from switchboard.rules.progress import OnUnknown
from switchboard.store.callbacks import Callback, CallbackOrder
from switchboard.trigger import Trigger
from switchboard_ingress.callbacks import CallbackList, EndpointList, OrderList
from switchboard_ingress.capability import CapabilityAnswer
from switchboard_ingress.consents import ConsentAudit, ConsentIdentities
from switchboard_ingress.contacts import ConflictList, ContactList
from switchboard_ingress.conversations import ConversationList, InjectedEvent, RecentList
from switchboard_ingress.events import ConversationEvent, EventList, SendEventAnswer
from switchboard_ingress.explain import Explanation
from switchboard_ingress.messages import ConversationMessage, MessageList
from switchboard_ingress.requests import (
    AppInput,
    CallbackSelection,
    CapabilityRequest,
    ContactInput,
    ContactMergeRequest,
    ConversationInput,
    InjectEventRequest,
    InjectMessageRequest,
    LastMessagesRequest,
    MessagePatch,
    ProfileRequest,
    Replay,
    SecretRotation,
    SendEventRequest,
    SendRequest,
    WebhookInput,
)
from switchboard_ingress.timelines import MessageTimeline

_REF: Final = "#/components/schemas/{name}"


class SendAnswer(Struct, frozen=True):
    """The message is queued, not sent."""

    message_id: str
    accepted_time: str


class TokenAnswer(Struct, frozen=True):
    access_token: str
    expires_in: int
    scope: str
    token_type: str


class CredentialAnswer(Credential, frozen=True, kw_only=True):
    """A credential with what the service knows about it."""

    state: CredentialState
    channel_known_id: str


class QueueStats(Struct, frozen=True):
    outbound_size: int
    outbound_limit: int


class AppAnswer(Struct, frozen=True):
    """An app, as clients read it (conversation-api 4.2)."""

    id: str
    channel_credentials: tuple[CredentialAnswer, ...]
    conversation_metadata_report_view: ReportView
    display_name: str
    rate_limits: RateLimits
    retention_policy: RetentionPolicy
    dispatch_retention_policy: DispatchRetentionPolicy
    processing_mode: ProcessingMode
    smart_conversation: Enabled
    queue_stats: QueueStats
    persist_message_status: Enabled
    message_search: Enabled
    callback_settings: CallbackSettings
    delivery_report_based_fallback: ReportFallback
    message_retry_settings: RetrySettings
    on_unknown: OnUnknown


class AppList(Struct, frozen=True):
    apps: tuple[AppAnswer, ...]


class WebhookAnswer(Struct, frozen=True):
    id: str
    app_id: str
    target: str
    target_type: TargetType
    secret: str
    triggers: tuple[Trigger, ...]
    client_credentials: ClientCredentials | None
    ends_retries_on: tuple[int, ...] | UnsetType = UNSET


class RotationAnswer(Struct, frozen=True):
    """The webhook with its new secret."""

    webhook: WebhookAnswer
    #: Until when the secret before signs too.
    previous_secret_until: datetime | None


class WebhookList(Struct, frozen=True):
    webhooks: tuple[WebhookAnswer, ...]


class ProfileAnswer(Struct, frozen=True):
    profile_name: str


class NothingToSay(Struct, frozen=True):
    """`{}`"""


class ErrorStatus(Struct, frozen=True):
    code: int
    message: str
    status: str
    #: Objects with `@type`: BadRequest with `fieldViolations`, or RetryInfo.
    details: list[dict[str, Any]]


class ErrorAnswer(Struct, frozen=True):
    """Every refusal (conversation-api 1.4)."""

    error: ErrorStatus


class Operation(Struct, frozen=True):
    """One line of the document."""

    method: str
    path: str
    summary: str
    answer: type[Struct]
    body: type[Struct] | None = None
    query: tuple[str, ...] = ()


_SOURCE: Final = ("messages_source",)
_MASK: Final = ("update_mask",)
OPERATIONS: Final = (
    Operation("post", "/messages:send", "Send a message", SendAnswer, SendRequest),
    Operation(
        "get", "/messages", "List messages", MessageList,
        query=("app_id", "channel_identity", "channel", "direction", "start_time", "end_time", "page_size",
               "page_token", "view", "messages_source", "only_recipient_originated", "contact_id", "conversation_id"),
    ),
    Operation("get", "/messages/{message_id}", "Get a message", ConversationMessage, query=_SOURCE),
    Operation(
        "patch", "/messages/{message_id}", "Change a message's metadata", ConversationMessage, MessagePatch, _SOURCE
    ),
    Operation("delete", "/messages/{message_id}", "Delete a message from storage", NothingToSay, query=_SOURCE),
    Operation("get", "/messages/{message_id}/timeline", "What happened to a message", MessageTimeline),
    Operation("post", "/messages:explain", "What a send would do", Explanation, SendRequest),
    Operation(
        "post", "/messages:fetch-last-message", "The last message of each recipient", MessageList, LastMessagesRequest
    ),
    Operation(
        "get", "/contacts", "List contacts", ContactList,
        query=("external_id", "channel", "identity", "page_size", "page_token"),
    ),
    Operation("post", "/contacts", "Create a contact", Contact, ContactInput),
    Operation("get", "/contacts/{contact_id}", "Get a contact", Contact),
    Operation("patch", "/contacts/{contact_id}", "Update a contact", Contact, ContactInput, _MASK),
    Operation(
        "delete", "/contacts/{contact_id}", "Delete a contact with its conversations and messages", NothingToSay
    ),
    Operation("post", "/contacts/{destination_id}:merge", "Merge two contacts", Contact, ContactMergeRequest),
    Operation(
        "post", "/contacts:getChannelProfile", "The name a channel knows a person by", ProfileAnswer, ProfileRequest
    ),
    Operation(
        "get", "/contacts:identityConflicts", "List identities that contacts share", ConflictList,
        query=("page_size", "page_token"),
    ),
    Operation(
        "get", "/conversations", "List conversations", ConversationList,
        query=("app_id", "contact_id", "only_active", "active_channel", "page_size", "page_token"),
    ),
    Operation("post", "/conversations", "Start a conversation", Conversation, ConversationInput),
    Operation(
        "get", "/conversations:recent", "List conversations with their last messages", RecentList,
        query=("app_id", "only_active", "order", "page_size", "page_token"),
    ),
    Operation("get", "/conversations/{conversation_id}", "Get a conversation", Conversation),
    Operation(
        "patch", "/conversations/{conversation_id}", "Update a conversation", Conversation, ConversationInput,
        (*_MASK, "metadata_update_strategy"),
    ),
    Operation(
        "delete", "/conversations/{conversation_id}", "Delete a conversation with its messages", NothingToSay
    ),
    Operation("post", "/conversations/{conversation_id}:stop", "Stop a conversation", NothingToSay),
    Operation(
        "post", "/conversations/{conversation_id}:inject-message", "Store a message that went another way",
        NothingToSay, InjectMessageRequest,
    ),
    Operation(
        "post", "/conversations/{conversation_id}:inject-event", "Store an event that went another way",
        InjectedEvent, InjectEventRequest,
    ),
    Operation("get", "/apps", "List apps", AppList),
    Operation("post", "/apps", "Create an app", AppAnswer, AppInput),
    Operation("get", "/apps/{app_id}", "Get an app", AppAnswer),
    Operation("patch", "/apps/{app_id}", "Update an app", AppAnswer, AppInput, _MASK),
    Operation("delete", "/apps/{app_id}", "Delete an app", NothingToSay),
    Operation("get", "/apps/{app_id}/webhooks", "List an app's webhooks", WebhookList),
    Operation("post", "/webhooks", "Create a webhook", WebhookAnswer, WebhookInput),
    Operation("get", "/webhooks/{webhook_id}", "Get a webhook", WebhookAnswer),
    Operation("patch", "/webhooks/{webhook_id}", "Update a webhook", WebhookAnswer, WebhookInput, _MASK),
    Operation("delete", "/webhooks/{webhook_id}", "Delete a webhook", NothingToSay),
    Operation(
        "post", "/webhooks/{webhook_id}:rotate-secret", "Give a webhook a new secret", RotationAnswer, SecretRotation
    ),
    Operation("post", "/webhooks/{webhook_id}:test", "Send a webhook a test callback", CallbackOrder),
    Operation("get", "/apps/{app_id}/endpoints", "See how an app's endpoints are", EndpointList),
    Operation(
        "get", "/apps/{app_id}/callbacks", "List callbacks", CallbackList,
        query=("states", "message_id", "webhook_id", "start_time", "end_time", "min_attempts", "page_size",
               "page_token"),
    ),
    Operation("post", "/apps/{app_id}/callbacks:replay", "Send callbacks once more", CallbackOrder, Replay),
    Operation(
        "post", "/apps/{app_id}/callbacks:resume", "Try for another day what failed", CallbackOrder, CallbackSelection
    ),
    Operation(
        "post", "/apps/{app_id}/callbacks:dismiss", "Give up callbacks that wait", CallbackOrder, CallbackSelection
    ),
    Operation("get", "/callbacks/{callback_id}", "Get a callback", Callback),
    Operation("post", "/callbacks/{callback_id}:redeliver", "Send a callback again", CallbackOrder),
    Operation("post", "/callbacks/{callback_id}:dismiss", "Give up a callback that waits", CallbackOrder),
    Operation("get", "/apps/{app_id}/callback-orders", "List orders about callbacks", OrderList),
    Operation("get", "/callback-orders/{order_id}", "See how far an order is", CallbackOrder),
    Operation("delete", "/callback-orders/{order_id}", "Stop an order", CallbackOrder),
    Operation("post", "/events:send", "Send an event", SendEventAnswer, SendEventRequest),
    Operation(
        "get", "/events", "List events", EventList, query=("conversation_id", "contact_id", "page_size", "page_token")
    ),
    Operation("get", "/events/{event_id}", "Get an event", ConversationEvent),
    Operation("delete", "/events/{event_id}", "Delete an event from storage", NothingToSay),
    Operation(
        "post", "/capability:query", "Ask where somebody can be reached", CapabilityAnswer, CapabilityRequest
    ),
    Operation(
        "get", "/apps/{app_id}/consents/{list_type}", "List who left", ConsentIdentities,
        query=("page_size", "page_token"),
    ),
    Operation(
        "get", "/apps/{app_id}/consents/identities/{identity}", "List the changes of somebody's consent", ConsentAudit
    ),
)  # fmt: skip


def document() -> dict[str, Any]:
    """The whole document."""
    types = [ErrorAnswer, TokenAnswer, *(kind for operation in OPERATIONS for kind in _types(operation))]
    _, schemas = msgspec.json.schema_components(list(dict.fromkeys(types)), ref_template=_REF)
    paths: dict[str, Any] = {"/oauth2/token": {"post": _token()}}
    for operation in OPERATIONS:
        path = f"/v1/projects/{{project_id}}{operation.path}"
        paths.setdefault(path, {})[operation.method] = _operation(operation)
    described = {
        "openapi": "3.1.0",
        "info": {
            "title": "Switchboard Conversation API",
            "version": "1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "Access key id and secret."},
            },
        },
    }
    # Defaults are values of our types; a document holds plain JSON.
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(described))
    return plain


def _types(operation: Operation) -> Iterator[type[Struct]]:
    yield operation.answer
    if operation.body:
        yield operation.body


def _operation(operation: Operation) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", f"/{{project_id}}{operation.path}")
    parameters = [
        *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names),
        *({"name": name, "in": "query", "schema": {"type": "string"}} for name in operation.query),
    ]
    if operation.path == "/messages:send":
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "The same request with the same key is one message.",
                "schema": {"type": "string", "maxLength": 255},
            }
        )
    described: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {"200": _content("OK", operation.answer), "default": _content("Refused", ErrorAnswer)},
    }
    if operation.body:
        described["requestBody"] = {"required": True, "content": _json(operation.body)}
    return described


def _token() -> dict[str, Any]:
    form = {
        "type": "object",
        "properties": {"grant_type": {"const": "client_credentials"}},
        "required": ["grant_type"],
    }
    return {
        "summary": "Get an access token",
        "security": [{"basic": []}],
        "requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": form}}},
        "responses": {"200": _content("OK", TokenAnswer), "401": {"description": "Wrong credentials"}},
    }


def _content(description: str, kind: type[Struct]) -> dict[str, Any]:
    return {"description": description, "content": _json(kind)}


def _json(kind: type[Struct]) -> Mapping[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(name=kind.__name__)}}}
