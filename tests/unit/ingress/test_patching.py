"""PATCH: with a mask exactly its paths change, without one exactly what is given."""

from typing import Any

import pytest

from switchboard_ingress.errors import BadRequest
from switchboard_ingress.patching import mask_of, patched

CURRENT = {"name": "old", "policy": {"type": "A", "days": 7}, "list": [1, 2]}
KNOWN = ("id", "name", "policy", "list")


@pytest.mark.parametrize(
    ("given", "mask", "changed"),
    [
        ({}, None, {}),
        ({}, (), {}),
        ({"name": "new"}, None, {"name": "new"}),
        ({"policy": {"days": 1}}, None, {"policy": {"type": "A", "days": 1}}),
        ({"list": [3]}, None, {"list": [3]}),
        ({"name": "new", "list": [3]}, ("name",), {"name": "new"}),
        ({"policy": {"days": 1, "type": "B"}}, ("policy.days",), {"policy": {"type": "A", "days": 1}}),
        ({"policy": {"days": 1}}, ("policy",), {"policy": {"days": 1}}),
        ({}, ("policy.days",), {"policy": {"type": "A"}}),
        ({"policy": {"max_days": 1}}, ("policy.maxDays",), {"policy": {"type": "A", "days": 7, "max_days": 1}}),
        ({"policy": {"ownName": 1}}, ("policy.ownName",), {"policy": {"type": "A", "days": 7, "ownName": 1}}),
        ({"name": "new"}, ("policy.days.deeper",), {"policy": {"type": "A", "days": {}}}),
        ({"id": "x"}, ("name", "list"), {"name": None, "list": None}),
    ],
)
def test_what_changes(given: dict[str, Any], mask: tuple[str, ...] | None, changed: dict[str, Any]) -> None:
    expected = {name: value for name, value in (CURRENT | changed).items() if value is not None}

    assert patched(CURRENT, given, mask, KNOWN) == expected
    assert CURRENT == {"name": "old", "policy": {"type": "A", "days": 7}, "list": [1, 2]}


def test_a_path_of_no_field_is_refused() -> None:
    with pytest.raises(BadRequest, match="update_mask"):
        patched(CURRENT, {}, ("nothing.at.all",), KNOWN)


@pytest.mark.parametrize(
    ("query", "mask"),
    [
        ([], None),
        ([("other", "x")], None),
        ([("update_mask", "")], ()),
        ([("update_mask", "a, b.c")], ("a", "b.c")),
        ([("update_mask.paths", "a"), ("update_mask.paths", "b,c")], ("a", "b", "c")),
        ([("updateMask", "displayName,retentionPolicy.ttlDays")], ("display_name", "retention_policy.ttlDays")),
    ],
)
def test_masks_are_read_in_every_spelling(query: list[tuple[str, str]], mask: tuple[str, ...] | None) -> None:
    assert mask_of(query) == mask
