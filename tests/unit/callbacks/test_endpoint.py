"""Where callbacks go."""

from __future__ import annotations

import pytest
from msgspec import Struct

from switchboard.callbacks.endpoint import Endpoint, endpoints_of, lane_of
from switchboard.ids import AppId
from switchboard.trigger import Trigger


class Hook(Struct, frozen=True):
    id: str
    triggers: tuple[str, ...] = ("MESSAGE_DELIVERY",)
    target: str = "https://hooks.example/a"
    target_type: str = "HTTP"


def test_each_webhook_that_asked_gets_its_copy() -> None:
    hooks = (Hook("1"), Hook("2", ("MESSAGE_INBOUND",)), Hook("3", ("OPT_IN", "MESSAGE_DELIVERY")))

    assert endpoints_of(Trigger.MESSAGE_DELIVERY, hooks) == (Endpoint("1", ""), Endpoint("3", ""))
    assert endpoints_of(Trigger.CAPABILITY, hooks) == ()


def test_nothing_goes_to_a_webhook_that_dismisses() -> None:
    assert endpoints_of(Trigger.MESSAGE_DELIVERY, (Hook("1", target_type="DISMISS"),)) == ()


@pytest.mark.parametrize(
    ("trigger", "overridden"),
    [(Trigger.MESSAGE_DELIVERY, True), (Trigger.EVENT_DELIVERY, True), (Trigger.MESSAGE_SUBMIT, False)],
)
def test_a_callback_url_takes_delivery_reports_from_all_webhooks(trigger: Trigger, overridden: bool) -> None:
    hooks = (Hook("1", ("MESSAGE_DELIVERY", "MESSAGE_SUBMIT", "EVENT_DELIVERY")),)
    found = endpoints_of(trigger, hooks, "https://other.example/x")

    assert found == ((Endpoint("", "https://other.example/x"),) if overridden else (Endpoint("1", ""),))


@pytest.mark.parametrize("asked", ["SMART_CONVERSATION", "SMART_CONVERSATIONS"])
@pytest.mark.parametrize("raised", [Trigger.SMART_CONVERSATION, Trigger.SMART_CONVERSATIONS])
def test_both_spellings_of_one_trigger_are_one(asked: str, raised: Trigger) -> None:
    assert endpoints_of(raised, (Hook("1", (asked,)),))


@pytest.mark.parametrize(
    ("webhook_id", "target", "lane"),
    [
        ("W", "", "endpoint:W"),
        ("", "https://a.example/x?y", "endpoint:A:https:a.example:443"),
        ("", "https://A.example.:443/z", "endpoint:A:https:a.example:443"),
        ("", "http://a.example:8080/", "endpoint:A:http:a.example:8080"),
        ("", "http://[2001:db8::1]/", "endpoint:A:http:2001:db8::1:80"),
    ],
)
def test_one_server_of_one_app_is_one_endpoint(webhook_id: str, target: str, lane: str) -> None:
    assert lane_of(AppId("A"), webhook_id, target) == lane


@pytest.mark.parametrize("target", ["", "ftp://a.example/", "https:///x", "http://a.example:x/"])
def test_a_url_without_a_server_has_no_lane(target: str) -> None:
    with pytest.raises(ValueError, match=r"server|port|Port"):
        lane_of(AppId("A"), "", target)
