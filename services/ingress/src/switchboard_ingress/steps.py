"""What a send may ask of single channels: `channel_steps`, our extension of `messages:send`. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from switchboard.channel.manifest import Manifest
from switchboard.identity import CONTRACT_CHANNELS, ChannelName
from switchboard.rules.route import StepWish, Success, reports
from switchboard.validation import Violation

#: The bounds of `delivery_report_waiting_time` hold for a step's own wait too (conversation-api 11.5).
LEAST_WAIT_SECONDS: Final = 10
MOST_WAIT_SECONDS: Final = 259_200


def check_steps(
    steps: Sequence[StepWish],
    tried: Collection[ChannelName],
    manifests: Mapping[ChannelName, Manifest],
    fallback_wait_seconds: int | None,
) -> Iterator[Violation]:
    """Everything that contradicts itself, the channels `tried` (empty: not known yet) or what channels report.

    `fallback_wait_seconds` is the app's `delivery_report_based_fallback`, for steps without a wait of their own.
    """
    seen: set[ChannelName] = set()
    for number, step in enumerate(steps):
        where = f"channel_steps[{number}]"
        if step.channel not in CONTRACT_CHANNELS:
            yield Violation(f"{where}.channel", "unknown channel")
            continue
        if step.channel in seen:
            yield Violation(f"{where}.channel", f"{step.channel} has its step already")
        if tried and step.channel not in tried:
            yield Violation(f"{where}.channel", f"{step.channel} is not among the channels to try")
        seen.add(step.channel)
        yield from _check_wait(where, step, fallback_wait_seconds)
        manifest = manifests.get(step.channel)
        if manifest is not None and not reports(manifest, step.success):
            yield Violation(f"{where}.success", f"{step.channel} never reports {step.success}")
        if step.switch_after_delivered and step.success is not Success.READ:
            yield Violation(f"{where}.switch_after_delivered", "goes with success READ only")


def _check_wait(where: str, step: StepWish, fallback_wait_seconds: int | None) -> Iterator[Violation]:
    field = f"{where}.wait_seconds"
    if step.success is Success.SUBMITTED:
        if step.wait_seconds is not None:
            yield Violation(field, "success SUBMITTED waits for nothing")
    elif step.wait_seconds is None:
        if fallback_wait_seconds is None:
            yield Violation(field, "is required where the app has no delivery_report_based_fallback")
    elif not LEAST_WAIT_SECONDS <= step.wait_seconds <= MOST_WAIT_SECONDS:
        yield Violation(field, f"must be between {LEAST_WAIT_SECONDS} and {MOST_WAIT_SECONDS}")
