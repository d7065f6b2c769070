"""PATCH: which fields change (conversation-api 2). Pure, on decoded JSON."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from switchboard.validation import Violation
from switchboard_ingress.errors import BadRequest

_HUMP: Final = re.compile(r"(?<!^)(?=[A-Z])")


def mask_of(query: Iterable[tuple[str, str]]) -> tuple[str, ...] | None:
    """The paths of `update_mask` or `update_mask.paths`, comma-joined, repeated or both. None: no mask was given.

    Fields are named as the API spells them. What is below a field may be a name of the client's own, so it stays.
    """
    values = [value for name, value in query if name in ("update_mask", "update_mask.paths", "updateMask")]
    if not values:
        return None
    paths = [path.strip() for value in values for path in value.split(",")]
    return tuple(_respelled(path) for path in paths if path)


def _respelled(path: str) -> str:
    field, dot, below = path.partition(".")
    return f"{_snake(field)}{dot}{below}"


def _snake(name: str) -> str:
    return _HUMP.sub("_", name).lower()


def patched(
    current: Mapping[str, Any], given: Mapping[str, Any], mask: Sequence[str] | None, known: Iterable[str]
) -> dict[str, Any]:
    """`current` with what the request changes.

    With a mask exactly its paths change, and a path that is not in `given` is cleared to its default; without one
    every field of `given` does, objects field by field. Lists are replaced whole. `known` are all the fields the
    object has; those a client cannot write are passed over. Raises BadRequest for a path of no field.
    """
    if not mask:
        return _merged(current, given)
    changed = dict(current)
    for path in mask:
        names = path.split(".")
        if names[0] not in known:
            raise BadRequest(Violation("update_mask", f"there is no field {path!r}"))
        _set(changed, names, given)
    return changed


def _merged(current: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(current)
    for name, value in given.items():
        before = merged.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[name] = _merged(before, value)
        else:
            merged[name] = value
    return merged


def _set(target: dict[str, Any], names: Sequence[str], given: Any) -> None:
    source = given if isinstance(given, Mapping) else {}
    first, *rest = names
    if first not in source and first not in target:
        first = _snake(first)
    value = source.get(first)
    if rest:
        inner = target.get(first)
        copied = dict(inner) if isinstance(inner, Mapping) else {}
        _set(copied, rest, value)
        target[first] = copied
    elif value is None:
        target.pop(first, None)
    else:
        target[first] = value
