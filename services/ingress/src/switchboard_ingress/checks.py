"""What makes a request a bad one beyond its types (conversation-api 15.1). Pure: violations out, all at once."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from switchboard.channel.manifest import Manifest
from switchboard.configuration.app import RetentionType
from switchboard.configuration.credential import TAKEN, Credential
from switchboard.configuration.types import ClientCredentials
from switchboard.identity import CONTRACT_CHANNELS, ChannelName
from switchboard.store.callbacks import MOST_PER_SECOND, CallbackState
from switchboard.validation import Violation, well_formed_url
from switchboard_ingress.requests import AppInput, CallbackSelection, Replay, SecretRotation, WebhookInput

MAX_METADATA: Final = 1024
MAX_CONVERSATION_METADATA: Final = 2048
MAX_CORRELATION_ID: Final = 128
MAX_PROPERTY: Final = 1024
MAX_SECRET: Final = 256
MAX_TARGET: Final = 742
#: Nothing that names a person or a thing is longer, and an index can hold it.
MAX_ID: Final = 128
MAX_IDENTITY: Final = 256
MAX_SCOPE: Final = 1024
MAX_RESPONSE_TYPE: Final = 64
MAX_OVERLAP_SECONDS: Final = 30 * 86_400
MAX_DISPLAY_NAME: Final = 1024
MAX_DISPATCH_DAYS: Final = 7
MAX_CONVERSATION_DAYS: Final = 3650
MIN_TTL_SECONDS: Final = 3
MAX_TTL_SECONDS: Final = 315_576_000_000
#: A TTL beyond this is as good as none: ten years.
LONGEST_TTL_SECONDS: Final = 315_576_000

#: The keys of `channel_properties` that the contract knows (conversation-api 7.6); channels add their own.
CONTRACT_PROPERTIES: Final = frozenset(
    {
        "SMS_SENDER", "SMS_FLASH_MESSAGE", "SMS_MAX_NUMBER_OF_MESSAGE_PARTS", "MMS_SENDER", "MMS_STRICT_VALIDATION",
        "MESSENGER_MESSAGING_TYPE", "MESSENGER_MESSAGE_TAG", "MESSENGER_NOTIFICATION_TYPE", "INSTAGRAM_MESSAGE_TAG",
        "VIBER_SENDER_NAME", "VIBER_SENDER_AVATAR", "TELEGRAM_DISABLE_LINK_PREVIEW", "KAKAOTALK_AUTHENTICATION",
        "LINE_VIDEO_TRACKING_ID", "RCS_WEBVIEW_MODE", "RCS_CARD_ORIENTATION", "RCS_CARD_THUMBNAIL_IMAGE_ALIGNMENT",
    }
)  # fmt: skip

#: These say "not now", so they cannot end anything.
_LATER: Final = frozenset({408, 425, 429})
_TTL: Final = re.compile(r"[0-9]{1,15}s")
#: PostgreSQL keeps none in a text.
NO_NUL: Final = "must not hold a NUL character"
#: NUL as JSON writes it, told from a backslash followed by "u0000".
_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
#: Hosts of the service this one is compatible with may not be called back (conversation-api 9.1).
_FORBIDDEN_HOST: Final = re.compile(r"conversation-api\.([a-z0-9-]+\.)*sinch\.com")


def at_most(field: str, text: str | None, limit: int) -> Iterator[Violation]:
    """A text may be absent, but not longer than `limit` characters, and PostgreSQL keeps no NUL."""
    if not text:
        return
    if len(text) > limit:
        yield Violation(field, f"at most {limit} characters, not {len(text)}")
    if "\x00" in text:
        yield Violation(field, NO_NUL)


def check_id(field: str, id: str) -> Iterator[Violation]:
    """The id of something is there, and short enough to be one."""
    if not id:
        yield Violation(field, "is required")
    yield from at_most(field, id, MAX_ID)


def check_identity(field: str, spelled: str) -> Iterator[Violation]:
    """Somebody's identity on a channel is there, and short enough to be looked for."""
    if not spelled.strip():
        yield Violation(field, "is required")
    yield from at_most(field, spelled, MAX_IDENTITY)


def check_url(field: str, url: str) -> Iterator[Violation]:
    """An address to call back, of the length that the contract allows webhooks."""
    if (size_bytes := len(url.encode())) > MAX_TARGET:
        yield Violation(field, f"at most {MAX_TARGET} bytes, not {size_bytes}")
    if not well_formed_url(url):
        yield Violation(field, "an absolute http or https URL is expected")


def json_at_most(field: str, value: Mapping[str, Any] | None, limit: int) -> Iterator[Violation]:
    """The same of an object, which counts as it is written."""
    if value is None:
        return
    written = msgspec.json.encode(value)
    yield from at_most(field, written.decode(), limit)
    if _ESCAPED_NUL.search(written):
        yield Violation(field, NO_NUL)


def read_ttl(text: str | None) -> int | None:
    """Seconds of a `ttl`, at most ten years. Raises ValueError for what is none."""
    if text is None:
        return None
    if not _TTL.fullmatch(text) or not MIN_TTL_SECONDS <= (seconds := int(text[:-1])) <= MAX_TTL_SECONDS:
        raise ValueError(f'whole seconds like "60s" are expected, from {MIN_TTL_SECONDS} to {MAX_TTL_SECONDS}')
    return min(seconds, LONGEST_TTL_SECONDS)


def check_properties(properties: Mapping[str, str], manifests: Mapping[ChannelName, Manifest]) -> Iterator[Violation]:
    """Keys must be known to the contract or to a channel here; values have a length."""
    for key, value in properties.items():
        if key not in CONTRACT_PROPERTIES and not any(key in manifest.properties for manifest in manifests.values()):
            yield Violation(f"channel_properties.{key}", "unknown channel property")
        yield from at_most(f"channel_properties.{key}", value, MAX_PROPERTY)


def check_app(app: AppInput) -> list[Violation]:
    """An app as it would be stored."""
    return [
        *_check_name(app.display_name),
        *_check_credentials(app.channel_credentials),
        *_check_retention(app),
        *_check_timing(app),
        *at_most(
            "callback_settings.secret_for_overridden_callback_urls",
            app.callback_settings.secret_for_overridden_callback_urls,
            MAX_SECRET,
        ),
    ]


def check_webhook(webhook: WebhookInput) -> list[Violation]:
    """A webhook as it would be stored; that its app exists and its target is new is seen elsewhere."""
    return [
        *_required("app_id", webhook.app_id),
        *_check_target(webhook.target),
        *_check_triggers(webhook.triggers),
        *at_most("secret", webhook.secret, MAX_SECRET),
        *(_check_client(webhook.client_credentials) if webhook.client_credentials else ()),
        *_check_ends(webhook.ends_retries_on),
    ]


def check_rotation(rotation: SecretRotation) -> list[Violation]:
    """A new secret and how long the old one lives on."""
    found = list(at_most("secret", rotation.secret, MAX_SECRET))
    if not _TTL.fullmatch(rotation.overlap) or int(rotation.overlap[:-1]) > MAX_OVERLAP_SECONDS:
        found.append(Violation("overlap", f'whole seconds like "3600s" are expected, up to {MAX_OVERLAP_SECONDS}'))
    return found


def check_replay(replay: Replay) -> list[Violation]:
    """What is to be sent again, and how fast."""
    found = list(check_selection(replay))
    if replay.target:
        found += _check_target(replay.target)
    if not 0 < replay.per_second <= MOST_PER_SECOND:
        found.append(Violation("per_second", f"more than 0 and at most {MOST_PER_SECOND:g} are expected"))
    if CallbackState.WAITING in replay.states:
        found.append(Violation("states", "waiting callbacks cannot be replayed: resume them"))
    return found


def check_selection(selection: CallbackSelection) -> Iterator[Violation]:
    """A window has a zone and is not empty."""
    for field in ("start_time", "end_time"):
        moment = getattr(selection, field)
        if moment is not None and moment.tzinfo is None:
            yield Violation(field, "an RFC 3339 time with a zone is expected")
            return
    if selection.start_time and selection.end_time and selection.start_time >= selection.end_time:
        yield Violation("start_time", "must be before end_time")


def _check_ends(statuses: Collection[int]) -> Iterator[Violation]:
    if any(not 400 <= status < 500 or status in _LATER for status in statuses):
        yield Violation("ends_retries_on", "statuses from 400 to 499 are expected, but not 408, 425 or 429")


def _required(field: str, text: str) -> Iterator[Violation]:
    if not text:
        yield Violation(field, "is required")


def _between(field: str, value: int, least: int, most: int) -> Iterator[Violation]:
    if not least <= value <= most:
        yield Violation(field, f"must be between {least} and {most}")


def _check_name(name: str) -> Iterator[Violation]:
    yield from _required("display_name", name)
    yield from at_most("display_name", name, MAX_DISPLAY_NAME)


def _check_retention(app: AppInput) -> Iterator[Violation]:
    policy, dispatch = app.retention_policy, app.dispatch_retention_policy
    # What is kept for ever has no days to count.
    least = 0 if policy.retention_type is RetentionType.PERSIST_RETENTION_POLICY else 1
    yield from _between("retention_policy.ttl_days", policy.ttl_days, least, MAX_CONVERSATION_DAYS)
    yield from _between("dispatch_retention_policy.ttl_days", dispatch.ttl_days, 0, MAX_DISPATCH_DAYS)
    if dispatch.retention_type is not RetentionType.MESSAGE_EXPIRE_POLICY:
        yield Violation("dispatch_retention_policy.retention_type", "must be MESSAGE_EXPIRE_POLICY")


def _check_timing(app: AppInput) -> Iterator[Violation]:
    yield from _between("message_retry_settings.retry_duration", app.message_retry_settings.retry_duration, 30, 3600)
    fallback = app.delivery_report_based_fallback
    if fallback.enabled or fallback.delivery_report_waiting_time:
        yield from _between(
            "delivery_report_based_fallback.delivery_report_waiting_time",
            fallback.delivery_report_waiting_time,
            10,
            259_200,
        )


def _check_credentials(credentials: Collection[Credential]) -> Iterator[Violation]:
    if not credentials:
        yield Violation("channel_credentials", "at least one is required")
    seen: set[tuple[ChannelName, int]] = set()
    for number, credential in enumerate(credentials):
        where = f"channel_credentials[{number}]"
        yield from _check_credential(where, credential)
        several = credential.channel == "LINE"
        place = (credential.channel, credential.credential_ordinal_number if several else 0)
        if place in seen:
            yield Violation(f"{where}.channel", f"{credential.channel} has its credentials already")
        seen.add(place)


def _check_credential(where: str, credential: Credential) -> Iterator[Violation]:
    if credential.channel not in CONTRACT_CHANNELS:
        yield Violation(f"{where}.channel", "unknown channel")
        return
    taken = TAKEN[credential.channel]
    if len(credential.given) != 1 or credential.given[0] not in taken:
        yield Violation(where, f"{credential.channel} takes exactly one of {', '.join(taken)}")
    for name in credential.given:
        yield from _check_filled(f"{where}.{name}", getattr(credential, name))
    if (line := credential.line_enterprise_credentials) and bool(line.line_japan) == bool(line.line_thailand):
        yield Violation(f"{where}.line_enterprise_credentials", "exactly one of line_japan and line_thailand")
    yield from at_most(f"{where}.callback_secret", credential.callback_secret, MAX_SECRET)
    yield from _between(f"{where}.credential_ordinal_number", credential.credential_ordinal_number, 0, 255)


def _check_filled(where: str, value: object) -> Iterator[Violation]:
    """No required text of a credential object may be empty."""
    for field in msgspec.structs.fields(type(value)):  # type: ignore[arg-type]
        item = getattr(value, field.name)
        if isinstance(item, msgspec.Struct):
            yield from _check_filled(f"{where}.{field.name}", item)
        elif field.required and item == "":
            yield Violation(f"{where}.{field.name}", "is required")


def _check_target(target: str) -> Iterator[Violation]:
    yield from _required("target", target)
    if not target:
        return
    yield from check_url("target", target)
    if well_formed_url(target) and _FORBIDDEN_HOST.fullmatch(urlsplit(target).hostname or ""):
        yield Violation("target", "this host may not be called back")


def _check_triggers(triggers: Collection[object]) -> Iterator[Violation]:
    if not triggers:
        yield Violation("triggers", "at least one is required")
    if len(set(triggers)) != len(triggers):
        yield Violation("triggers", "each trigger may be there once")


def _check_client(client: ClientCredentials) -> Iterator[Violation]:
    yield from _required("client_credentials.client_id", client.client_id)
    yield from _required("client_credentials.client_secret", client.client_secret)
    if not well_formed_url(client.endpoint):
        yield Violation("client_credentials.endpoint", "an absolute http or https URL is expected")
    yield from at_most("client_credentials.scope", client.scope, MAX_SCOPE)
    yield from at_most("client_credentials.response_type", client.response_type, MAX_RESPONSE_TYPE)
