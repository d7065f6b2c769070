"""The OpenAPI document says what ingress does: every operation, and every answer."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from tests.flow.ingress.conftest import Client, a_send
from tests.flow.ingress.test_messages import DISPATCH, received, stored

from switchboard.configuration import App
from switchboard.store.pool import Pool
from switchboard_ingress.openapi import OPERATIONS, Operation, document


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return document()


def fits(described: dict[str, Any], name: str, answer: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
    Draft202012Validator(schema).validate(answer)
    known = described["components"]["schemas"][name]["properties"]
    assert set(answer) <= set(known), "the document does not know a field of the answer"


def test_the_document_is_valid(described: dict[str, Any]) -> None:
    validate(described)


async def test_every_operation_of_the_document_is_there(call: Client) -> None:
    for operation in OPERATIONS:
        path = operation.path.replace("{", "").replace("}", "")
        answer = await call(operation.method.upper(), path, {} if operation.body else None)
        assert answer.status in (200, 400, 404), operation
        if answer.status == 404:
            assert answer.error["message"] != "There is no such endpoint.", operation


async def test_answers_are_as_the_document_says(call: Client, app: App, pool: Pool, described: dict[str, Any]) -> None:
    hook = {"app_id": app.id, "target": "https://quay.example", "triggers": ["OPT_IN"]}
    to_contact, to_app = await stored(pool, app), await received(pool, app, 1)

    for name, answer in (
        ("SendAnswer", await call("POST", "/messages:send", a_send(app))),
        ("AppAnswer", await call("GET", f"/apps/{app.id}")),
        ("AppList", await call("GET", "/apps")),
        ("WebhookAnswer", await call("POST", "/webhooks", hook)),
        ("WebhookList", await call("GET", f"/apps/{app.id}/webhooks")),
        ("MessageList", await call("GET", f"/messages?{DISPATCH}")),
        ("ConversationMessage", await call("GET", f"/messages/{to_contact}?{DISPATCH}")),
        ("ConversationMessage", await call("GET", f"/messages/{to_app}?{DISPATCH}")),
        ("NothingToSay", await call("DELETE", f"/messages/{to_app}?{DISPATCH}")),
        ("TokenAnswer", await call("POST", "//oauth2/token", b"grant_type=client_credentials", raw=True)),
    ):
        assert answer.status == 200, name
        fits(described, name, answer.json)
    fits(described, "ErrorAnswer", (await call("POST", "/messages:send", {})).json)


def test_an_operation_is_described_once() -> None:
    places = [(operation.method, operation.path) for operation in OPERATIONS]

    assert len(set(places)) == len(places)
    assert all(isinstance(operation, Operation) for operation in OPERATIONS)
