"""A message's timeline, told for people: the kernel's story, as `switchboard timeline` and `tail` print it."""

from switchboard.story import Line, tell

__all__ = ["Line", "tell"]
