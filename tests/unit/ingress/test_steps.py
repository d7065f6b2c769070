"""`channel_steps`: what a send may ask of single channels, and what contradicts itself."""

from typing import Any

import pytest

from switchboard.channel.manifest import AccountOwner, Connection, CredentialSpec, Manifest
from switchboard.identity import ChannelName
from switchboard.rules.route import StepWish, Success
from switchboard.status import Status
from switchboard_ingress.steps import check_steps

SMS, RCS, TELEGRAM = ChannelName("SMS"), ChannelName("RCS"), ChannelName("TELEGRAM")


def manifest(channel: ChannelName, *receipts: Status) -> Manifest:
    return Manifest(
        channel=channel,
        title=channel,
        owner=AccountOwner.APP,
        connection=Connection.REQUEST,
        credentials=CredentialSpec("token", ()),
        normal_identity=str,
        receipts=frozenset(receipts),
        content={},
    )


MANIFESTS = {
    SMS: manifest(SMS, Status.DELIVERED),
    RCS: manifest(RCS, Status.DELIVERED, Status.READ),
    TELEGRAM: manifest(TELEGRAM),
}


def fields(*steps: StepWish, tried: Any = (RCS, SMS, TELEGRAM), fallback: int | None = None) -> list[str]:
    return [found.field.removeprefix("channel_steps") for found in check_steps(steps, tried, MANIFESTS, fallback)]


@pytest.mark.parametrize(
    "step",
    [
        StepWish(RCS, Success.DELIVERED, 10),
        StepWish(RCS, Success.READ, 259_200, switch_after_delivered=True),
        StepWish(TELEGRAM, Success.SUBMITTED),
        StepWish(SMS, wait_seconds=60),
    ],
)
def test_what_a_channel_can_come_to_may_be_asked_of_it(step: StepWish) -> None:
    assert fields(step) == []


@pytest.mark.parametrize(
    ("step", "field"),
    [
        (StepWish(ChannelName("PIGEON"), wait_seconds=60), "[0].channel"),
        (StepWish(ChannelName("VIBERBM"), wait_seconds=60), "[0].channel"),
        (StepWish(SMS, wait_seconds=9), "[0].wait_seconds"),
        (StepWish(SMS, wait_seconds=259_201), "[0].wait_seconds"),
        (StepWish(SMS), "[0].wait_seconds"),
        (StepWish(SMS, Success.SUBMITTED, 60), "[0].wait_seconds"),
        (StepWish(SMS, Success.READ, 60), "[0].success"),
        (StepWish(TELEGRAM, wait_seconds=60), "[0].success"),
        (StepWish(RCS, wait_seconds=60, switch_after_delivered=True), "[0].switch_after_delivered"),
    ],
)
def test_what_contradicts_itself_is_named(step: StepWish, field: str) -> None:
    assert fields(step) == [field]


def test_a_channel_has_one_step() -> None:
    assert fields(StepWish(SMS, wait_seconds=60), StepWish(SMS, wait_seconds=90)) == ["[1].channel"]


def test_a_step_without_a_wait_takes_the_app_s() -> None:
    assert fields(StepWish(SMS), fallback=60) == []


def test_a_channel_that_is_not_installed_reports_nobody_knows_what() -> None:
    assert fields(StepWish(ChannelName("LINE"), Success.READ, 60), tried=()) == []
