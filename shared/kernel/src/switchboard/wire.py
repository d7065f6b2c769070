"""What all types on the wire share."""

from msgspec import Struct


class Wire(Struct, frozen=True, omit_defaults=True):
    """A value that does not change; what was not given is not on the wire."""
