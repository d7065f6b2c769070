"""The crash and decision rules of DESIGN 5 hold in any order of steps, and each is needed."""

import os
import random

import pytest
from tests.unit.rules.interleaving import Rules, World

RUNS = 1_500


def first_faults(seeds: range, rules: Rules, told: str = "") -> tuple[int, list[str]] | None:
    """The first seed whose run goes wrong (in the way `told`), and how."""
    for seed in seeds:
        world = World(seed, rules)
        world.run()
        if any(told in fault for fault in world.faults()):
            return seed, world.faults()
    return None


def test_nothing_is_lost_sent_twice_or_told_out_of_turn_on_fixed_seeds():
    assert first_faults(range(RUNS), Rules()) is None


def test_nothing_is_lost_sent_twice_or_told_out_of_turn_on_fresh_seeds():
    base = int(os.environ.get("SWITCHBOARD_TEST_SEED", random.SystemRandom().randrange(10**9)))

    found = first_faults(range(base, base + RUNS // 3), Rules())

    assert found is None, f"seed {base}: {found}"


@pytest.mark.slow
def test_twenty_thousand_runs():
    assert first_faults(range(RUNS, RUNS + 20_000), Rules()) is None


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (Rules(claim_by_state=False), "submitted twice"),
        (Rules(publish_before_offset=False), "never"),
        (Rules(timers_only_publish=False), "submitted twice"),
        (Rules(undecided_waits=False), "out of turn"),
    ],
    ids=[
        "claim without a look at the state",
        "offset before publish",
        "a sweep that dispatches by itself",
        "an adapter that goes past what is not decided",
    ],
)
def test_each_rule_is_needed(broken: Rules, told: str):
    assert first_faults(range(RUNS), broken, told) is not None
