"""Ids made from causes."""

from switchboard.ids import derive, is_ulid, milliseconds_of


def test_two_ids_of_one_millisecond_lead_to_different_ids() -> None:
    first, second = "01K098EK8NWJ47TAN9ZT24MNPZ", "01K098EK8N00000000000000AA"

    assert derive(first, "callback", "webhook") != derive(second, "callback", "webhook")
    assert derive(first, "callback", "webhook") == derive(first, "callback", "webhook")
    assert is_ulid(derive(first, "callback"))
    assert milliseconds_of(derive(first, "callback")) == milliseconds_of(first)
