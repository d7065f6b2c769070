"""Settings that cannot work are refused when they are made."""

import pytest
from pydantic import ValidationError

from switchboard.bus import BusSettings


def test_topics_carry_the_installations_prefix_and_their_version() -> None:
    assert BusSettings(bootstrap="b").dead_letter_topic == "switchboard.dead-letters.v1"
    assert BusSettings(bootstrap="b", topic_prefix="t1.").topic("attempts") == "t1.attempts.v1"


def test_a_member_is_static_where_ordinals_exist() -> None:
    assert BusSettings(bootstrap="b", client_id="router").static_member is None
    assert BusSettings(bootstrap="b", client_id="router", member_ordinal=2).static_member == "router-2"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"drain_seconds": 29.0}, "rebalance_timeout_ms"),
        ({"heartbeat_interval_ms": 6_000}, "heartbeat_interval_ms"),
        ({"bootstrap": ""}, "bootstrap"),
        ({"topic_prefx": "x."}, "topic_prefx"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        BusSettings.model_validate({"bootstrap": "b", **wrong})
