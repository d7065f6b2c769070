"""Request bodies: JSON in, typed values out, or a refusal that names the field (conversation-api 2).

Names are snake_case; lowerCamelCase and explicit nulls are taken too. Both are rare and msgspec would drop the former
silently, so a cheap look at the bytes decides whether the slow path runs: it respells the names that the types know
and leaves free-form maps alone.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import inspect

from switchboard.validation import Violation
from switchboard_ingress.errors import BadRequest

T = TypeVar("T")

#: Objects and arrays within each other.
MAX_DEPTH: Final = 100

_CAMEL: Final = re.compile(rb'"[a-z][a-z0-9]*[A-Z][A-Za-z0-9]*"\s*:')
_PLACE: Final = re.compile(r"^(?P<what>.*?)(?: - at `(?P<place>.*)`)?$", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET: Final = re.compile(rb"[{}\[\]]")
_any: Final = msgspec.json.Decoder()


class Body(Generic[T]):
    """How one kind of request body is read."""

    def __init__(self, kind: type[T]) -> None:
        self._decoder = msgspec.json.Decoder(kind)
        self._type = inspect.type_info(kind)

    def read(self, raw: bytes) -> T:
        """Decode. Raises BadRequest."""
        _check_depth(raw)
        if _CAMEL.search(raw):
            return self._decode(msgspec.json.encode(self.plain(raw)))
        try:
            return self._decoder.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if isinstance(error, msgspec.ValidationError) and b"null" in raw:
                return self._decode(msgspec.json.encode(self.plain(raw)))
            raise refusal(error) from None

    def plain(self, raw: bytes) -> Any:
        """Decode into dicts and lists, names respelled and nulls left out. Raises BadRequest."""
        _check_depth(raw)
        try:
            return respell(_any.decode(raw), self._type)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise refusal(error) from None

    def convert(self, value: Any) -> T:
        """Make the typed value of dicts and lists. Raises BadRequest."""
        return self._decode(msgspec.json.encode(value))

    def _decode(self, raw: bytes) -> T:
        try:
            return self._decoder.decode(raw)
        except msgspec.DecodeError as error:
            raise refusal(error) from None


def _check_depth(raw: bytes) -> None:
    """Refuse what is nested so deeply that some service further on could not read it."""
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return
    depth = deepest = 0
    # Brackets inside strings do not nest.
    for bracket in _BRACKET.finditer(_STRING.sub(b"", raw)):
        depth += 1 if bracket[0] in b"{[" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise BadRequest(Violation("", f"the body is nested more than {MAX_DEPTH} deep"))


def respell(value: Any, kind: inspect.Type) -> Any:
    """Spell the names of structs as their types do and leave out nulls there. Free-form values stay as they are."""
    match kind:
        case inspect.StructType() if isinstance(value, dict):
            return _respell_struct(value, kind)
        case inspect.DictType() if isinstance(value, dict):
            return {key: respell(item, kind.value_type) for key, item in value.items()}
        case inspect.VarTupleType() | inspect.ListType() if isinstance(value, list):
            return [respell(item, kind.item_type) for item in value]
        case inspect.UnionType():
            chosen = _member(value, kind)
            return value if chosen is None else respell(value, chosen)
        case _:
            return value


def _respell_struct(value: dict[str, Any], kind: inspect.StructType) -> dict[str, Any]:
    names, fields = _names(kind.cls)
    respelled: dict[str, Any] = {}
    for key, item in value.items():
        if item is None:
            continue
        name = names.get(key, key)
        # Spelled both ways, the API's own spelling counts.
        if name != key and name in value and value[name] is not None:
            continue
        respelled[name] = respell(item, fields[name]) if name in fields else item
    return respelled


def _member(value: Any, union: inspect.UnionType) -> inspect.Type | None:
    """The member of a union that `value` is meant to be."""
    if isinstance(value, list):
        return next((kind for kind in union.types if isinstance(kind, inspect.VarTupleType | inspect.ListType)), None)
    if not isinstance(value, dict):
        return None
    structs = [kind for kind in union.types if isinstance(kind, inspect.StructType)]
    for kind in structs:
        field = kind.tag_field
        if field is None:
            return kind
        if kind.tag in (value.get(field), value.get(camel(field))):
            return kind
    return next((kind for kind in union.types if isinstance(kind, inspect.DictType)), None)


@cache
def _names(struct: type) -> tuple[Mapping[str, str], Mapping[str, inspect.Type]]:
    kind = inspect.type_info(struct)
    assert isinstance(kind, inspect.StructType)
    fields = {field.encode_name: field.type for field in kind.fields}
    known = [*fields, *([kind.tag_field] if kind.tag_field else [])]
    return {camel(name): name for name in known}, fields


def camel(name: str) -> str:
    """snake_case as lowerCamelCase."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def refusal(error: Exception) -> BadRequest:
    """What msgspec could not read, as a refusal that names the field."""
    if not isinstance(error, msgspec.ValidationError):
        return BadRequest(Violation("", f"the body is not JSON: {_plainly(str(error))}"))
    match = _PLACE.match(str(error))
    what, place = (match["what"], match["place"] or "") if match else (str(error), "")
    field = place.removeprefix("$").removeprefix(".")
    if missing := _MISSING.match(what):
        field = f"{field}.{missing[1]}" if field else missing[1]
        return BadRequest(Violation(field, "is required"))
    return BadRequest(Violation(field, what[:1].lower() + what[1:]))


def _plainly(text: str) -> str:
    return text.removeprefix("JSON is malformed: ")
