"""Signatures that the receivers' own libraries accept."""

from __future__ import annotations

import time
from base64 import b64encode
from datetime import UTC, datetime

import pytest
from sinch.domains.conversation.sinch_events.v1.conversation_sinch_event import ConversationSinchEvent
from standardwebhooks import Webhook, WebhookVerificationError

from switchboard.callbacks.signing import Try, contract_signature, headers
from switchboard.ids import CallbackId, mint
from switchboard.trigger import Trigger

BODY = '{"app_id":"01K07AR79NTJNDR8WB9R47EE9H","note":"blåbär"}'.encode()
NEW, OLD = "wharf-lantern-42", "quay-rope-41"


def a_try(attempt: int = 1) -> Try:
    return Try(CallbackId(mint()), Trigger.MESSAGE_DELIVERY, 7, attempt, datetime(2025, 7, 16, tzinfo=UTC))


def test_the_reference_test_vector() -> None:
    signature = contract_signature(NEW, BODY, "01K0A00000NNCE0000TEST0001", 1752570123)

    assert signature == "x8P+ImOVrMJhNvY2jjrIuc78jpTVdh6+Djbbt4oPAaA="


def test_the_official_client_accepts_the_signature_of_the_newest_secret_only() -> None:
    told = headers(a_try(), BODY, (NEW, OLD), int(time.time()))

    assert ConversationSinchEvent(NEW).validate_authentication_header(told, BODY)
    assert not ConversationSinchEvent(OLD).validate_authentication_header(told, BODY)
    assert not ConversationSinchEvent(NEW).validate_authentication_header(told, BODY + b" ")
    assert told["x-sinch-webhook-signature-algorithm"] == "HmacSHA256"


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_standard_webhooks_accepts_both_secrets_during_a_rotation(secret: str) -> None:
    told = headers(a_try(), BODY, (NEW, OLD), int(time.time()))

    assert Webhook(secret.encode()).verify(BODY, told)["note"] == "blåbär"
    assert Webhook("whsec_" + b64encode(secret.encode()).decode()).verify(BODY, told)
    with pytest.raises(WebhookVerificationError):
        Webhook(b"another").verify(BODY, told)


def test_a_secret_in_the_spelling_of_standard_webhooks_works_in_its_libraries_as_it_is() -> None:
    secret = "whsec_" + b64encode(b"thirty-two bytes of real entropy").decode()
    told = headers(a_try(), BODY, (secret,), int(time.time()))

    assert Webhook(secret).verify(BODY, told)
    assert ConversationSinchEvent(secret).validate_authentication_header(told, BODY)


def test_without_a_secret_nothing_is_signed_but_the_event_is_named() -> None:
    this = a_try()
    told = headers(this, BODY, ("",), 1752570123)

    assert not [name for name in told if "signature" in name]
    assert told["switchboard-event-id"] == told["webhook-id"] == this.callback_id
    assert (told["switchboard-sequence"], told["switchboard-attempt"]) == ("7", "1")
    assert told["switchboard-event-time"] == "2025-07-16T00:00:00.000Z"


def test_every_try_is_signed_anew_under_one_event_id() -> None:
    this = a_try()
    first, second = headers(this, BODY, (NEW,), 1752570123), headers(this, BODY, (NEW,), 1752570128)

    assert first["x-sinch-webhook-signature-nonce"] != second["x-sinch-webhook-signature-nonce"]
    assert first["x-sinch-webhook-signature"] != second["x-sinch-webhook-signature"]
    assert first["webhook-id"] == second["webhook-id"]
