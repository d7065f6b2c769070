"""The published truth table is what the rules say."""

from pathlib import Path

import pytest

from switchboard.rules.table import SECTIONS, Section, rows, truth_table

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "failover.md"


def section(title: str) -> dict[str, tuple[str, str]]:
    """What follows each fact of a section: with a channel left, and on the last one."""
    [found] = [section for section in SECTIONS if section.title == title]
    return {row.fact: (row.onward, row.last) for row in rows(found)}


def test_the_page_is_the_table():
    assert PAGE.read_text("utf-8") == truth_table(), "run `make schemas`"


@pytest.mark.parametrize("found", SECTIONS, ids=lambda found: found.title)
def test_every_section_names_each_fact_once(found: Section):
    names = [fact for fact, _ in found.facts]

    assert len(names) == len(set(names)) > 0


def test_a_rejection_switches_while_a_channel_is_left():
    follows = section("The outcome of an attempt")

    assert follows["rejected"] == (
        "SWITCHING_CHANNEL, then the next channel is tried",
        "FAILED (CHANNEL_REJECT), then the message ends",
    )


def test_what_stays_unknown_is_not_sent_again_unless_the_app_says_so():
    follows = section("While nobody knows whether a channel took it")

    assert follows["the wait is over, `on_unknown: FAIL`"][0] == "FAILED (UNKNOWN), then the message ends"
    assert follows["the wait is over, `on_unknown: FAIL_OVER`"][0].startswith("SWITCHING_CHANNEL")


def test_only_what_really_arrived_outranks_a_failure():
    assert section("After FAILED") == {
        "DELIVERED": ("DELIVERED", "DELIVERED"),
        "FAILED": ("nothing", "nothing"),
        "a record about it cannot be handled": ("nothing", "nothing"),
    }


def test_a_late_delivery_stops_a_fallback_that_waits_and_is_counted_where_both_delivered():
    assert section("After a switch")["the first channel: DELIVERED, while the second waits"] == (
        ("DELIVERED; what waits is not sent, then the message ends",) * 2
    )
    assert section("After a switch, once the first channel delivered it after all") == {
        "the first channel: READ": ("READ", "READ"),
        "the second: DELIVERED": ("DELIVERED, then it counts as delivered twice",) * 2,
        "the second: FAILED": ("nothing", "nothing"),
    }
