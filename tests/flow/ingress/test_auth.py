"""Who may call: tokens, access keys, projects, and paths that lead nowhere."""

import base64
from datetime import timedelta

import msgspec
import pytest
from tests.flow.ingress.conftest import KEY, OTHER_PROJECT, SECRET, Client, Clock, Reply, a_send, basic

from switchboard.configuration import App, ConfigurationStore
from switchboard.testing import wait_until

FORM = {"content-type": "application/x-www-form-urlencoded"}


async def ask_for_token(call: Client, authorization: str = "", form: bytes = b"grant_type=client_credentials") -> Reply:
    return await call(
        "POST", "//oauth2/token", form, headers={"authorization": authorization or basic(), **FORM}, raw=True
    )


async def bearer(call: Client) -> str:
    return f"Bearer {(await ask_for_token(call)).json['access_token']}"


async def test_a_token_is_given_for_an_access_key_and_opens_the_api(call: Client, app: App, clock: Clock) -> None:
    answer = await ask_for_token(call, form=b"grant_type=client_credentials&scope=all&unknown=1")

    assert answer.status == 200
    assert set(answer.json) == {"access_token", "expires_in", "scope", "token_type"}
    assert answer.json["expires_in"] == 3599
    assert answer.json["token_type"] == "bearer"
    payload = msgspec.json.decode(base64.urlsafe_b64decode(answer.json["access_token"].split(".")[1] + "=="))
    assert abs(payload["exp"] - clock().timestamp() - 3600) < 5
    listed = await call("GET", "/apps", headers={"authorization": f"bearer {answer.json['access_token']}"})
    assert [found["id"] for found in listed.json["apps"]] == [app.id]


async def test_an_expired_token_is_told_by_the_word_that_clients_look_for(call: Client, clock: Clock) -> None:
    token = await bearer(call)
    assert (await call("GET", "/apps", headers={"authorization": token})).status == 200
    clock.ahead = timedelta(seconds=3601)
    answer = await call("GET", "/apps", headers={"authorization": token})

    assert answer.status == 401
    assert answer.error["status"] == "UNAUTHENTICATED"
    assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
    assert "expired" in answer.headers["www-authenticate"]


@pytest.mark.parametrize("broken", ["", "x", "a.b.c", "a.b", "....", "\xe9.x.y"])
async def test_a_token_that_is_none_does_not_look_expired(call: Client, broken: str) -> None:
    answer = await call("GET", "/apps", headers={"authorization": f"Bearer {broken}"})

    assert answer.status == 401
    assert "expired" not in answer.headers["www-authenticate"]


async def test_a_token_that_was_changed_is_refused(call: Client) -> None:
    header, claims, signature = (await bearer(call)).removeprefix("Bearer ").split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"k1"}').decode().rstrip("=")
    foreign = base64.urlsafe_b64encode(
        msgspec.json.encode({"sub": "other", "project_id": OTHER_PROJECT, "iat": 1, "exp": 9_999_999_999})
    ).decode()

    for token in (f"{none}.{claims}.", f"{none}.{claims}.{signature}", f"{header}.{foreign}.{signature}"):
        assert (await call("GET", "/apps", headers={"authorization": f"Bearer {token}"})).status == 401


@pytest.mark.parametrize(
    "authorization",
    ["Basic", "Basic x", "Basic !!!", basic(secret="wrong"), basic(key="nobody"), basic(key="a\x00b"), "Digest x", "x"],
)
async def test_wrong_credentials_are_refused_everywhere(call: Client, authorization: str) -> None:
    for method, path in (("GET", "/apps"), ("POST", "/messages:send"), ("GET", "/nothing"), ("DELETE", "/webhooks/1")):
        answer = await call(method, path, headers={"authorization": authorization})
        assert answer.status == 401
        assert answer.error["message"] == "Request had invalid credentials."
        assert "www-authenticate" in answer.headers
    token = await ask_for_token(call, authorization)
    assert token.status == 401
    assert token.json["error"] == "invalid_client"
    assert token.json["error_description"]


async def test_a_call_without_credentials_is_refused(call: Client) -> None:
    assert (await call("GET", "/apps", headers={"authorization": ""})).status == 401


async def test_only_client_credentials_are_granted(call: Client) -> None:
    answer = await ask_for_token(call, form=b"grant_type=password")

    assert answer.status == 400
    assert answer.json["error"] == "unsupported_grant_type"
    assert (await call("GET", "//oauth2/token")).status == 501


async def test_credentials_of_another_project_are_forbidden(call: Client, app: App) -> None:
    for authorization in (basic("other"), await bearer(Client(call.api, OTHER_PROJECT))):
        target = Client(call.api) if authorization.startswith("Basic") else Client(call.api, OTHER_PROJECT)
        answer = await target("GET", f"/apps/{app.id}", headers={"authorization": authorization})
        assert answer.status == 403
        assert answer.error["status"] == "PERMISSION_DENIED"


async def test_a_revoked_key_ends_its_tokens_too(call: Client, store: ConfigurationStore) -> None:
    token = await bearer(call)
    await store.revoke_access_key(KEY)

    async def refused() -> bool:
        return (await call("GET", "/apps", headers={"authorization": token})).status == 401

    await wait_until(refused)
    assert (await call("GET", "/apps")).status == 401


async def test_a_key_may_hold_colons_in_its_secret(call: Client, store: ConfigurationStore) -> None:
    await store.put_access_key("colons", Client(call.api).project_id, f"{SECRET}:with:colons")

    assert (
        await call("GET", "/apps", headers={"authorization": basic("colons", f"{SECRET}:with:colons")})
    ).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404), ("GET", "/", 404), ("GET", "//", 404), ("GET", "//v1/projects", 404),
        ("GET", "//v3/projects/x/apps", 404), ("GET", "/apps/", 404), ("GET", "/apps/1/2/3", 404),
        ("PUT", "/apps", 501), ("GET", "/messages:send", 501), ("POST", "/messages/1", 501),
        ("PUT", "/contacts", 501), ("POST", "/conversations:recent", 501), ("GET", "/events:send", 501),
        ("POST", "/messages:transcode", 501), ("GET", "/contacts/1:merge", 501),
    ],
)  # fmt: skip
async def test_paths_that_lead_nowhere_are_404_and_known_ones_501(
    call: Client, method: str, path: str, status: int
) -> None:
    answer = await call(method, path)

    assert answer.status == status
    assert answer.error["status"] == {404: "NOT_FOUND", 501: "UNIMPLEMENTED"}[status]


async def test_a_post_of_webhooks_below_an_app_is_not_implemented(call: Client, app: App) -> None:
    assert (await call("POST", f"/apps/{app.id}/webhooks", {})).status == 501


async def test_a_colon_may_be_percent_encoded(call: Client, app: App) -> None:
    assert (await call("POST", "/messages%3Asend", a_send(app))).status == 200
