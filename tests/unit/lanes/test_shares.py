"""How a round's items are divided among lanes."""

import pytest

from switchboard.ids import LaneId
from switchboard.lanes.round import shares

SLOW, SLOWER, FAST = LaneId("dispatch:a:SMS"), LaneId("dispatch:b:SMS"), LaneId("dispatch:c:SMS")


@pytest.mark.parametrize(
    ("rooms", "expected"),
    [
        ({FAST: 400}, {FAST: 400}),
        ({FAST: 5000}, {FAST: 1000}),
        ({SLOW: 1, SLOWER: 2}, {SLOW: 1, SLOWER: 2}),
        # What the slow ones leave goes to the fast one.
        ({FAST: 5000, SLOW: 1, SLOWER: 2}, {FAST: 997, SLOW: 1, SLOWER: 2}),
        ({FAST: 5000, SLOW: 600, SLOWER: 600}, {FAST: 334, SLOW: 333, SLOWER: 333}),
    ],
)
def test_each_lane_gets_what_it_has_room_for_or_an_equal_part(rooms, expected):
    assert shares(rooms, 1000) == expected


def test_the_order_of_lanes_is_kept():
    assert list(shares({FAST: 9, SLOW: 1, SLOWER: 2}, 10)) == [FAST, SLOW, SLOWER]


def test_more_lanes_than_items_get_one_each():
    assert set(shares({LaneId(str(number)): 5 for number in range(20)}, 10).values()) == {1}
