"""Where a text may be cut without breaking what a person sees as one character (UAX #29, extended clusters).

The rules are those that matter for messages, from the general categories of the standard library: combining
and spacing marks, joiners, emoji with modifiers, joined emoji, flags, tags, Hangul syllables, CR LF.
Prepended marks of a few scripts are not kept with what follows them.
"""

import unicodedata
from typing import Final

_JOINER: Final = "\u200d"
_NON_JOINER: Final = "\u200c"
_HANGUL: Final = range(0xAC00, 0xD7A4)
_LEADING: Final = range(0x1100, 0x1160)
_VOWELS: Final = range(0x1160, 0x11A8)
_TRAILING: Final = range(0x11A8, 0x1200)


def last_boundary(text: str, start: int, end: int) -> int:
    """The last index in (start, end] where `text` may be cut, or `start` when there is none."""
    index = end
    while index > start and not is_boundary(text, index):
        index -= 1
    return index


def is_boundary(text: str, index: int) -> bool:
    """Tell whether a cluster ends before `index` and another begins there."""
    if index <= 0 or index >= len(text):
        return True
    before, after = text[index - 1], text[index]
    if after < "\u0300" and before < "\u0300":
        return not (before == "\r" and after == "\n")
    if before in "\r\n" or after in "\r\n":
        return True
    if _extends(after):
        return False
    if before == _JOINER:
        return not _joins(text, index - 1)
    if _is_flag_letter(before) and _is_flag_letter(after):
        return _flag_letters_before(text, index) % 2 == 0
    return not _same_syllable(ord(before), ord(after))


def _extends(character: str) -> bool:
    """Marks, joiners, skin tones and tag characters belong to what stands before them."""
    code = ord(character)
    return (
        character in (_JOINER, _NON_JOINER)
        or 0x1F3FB <= code <= 0x1F3FF
        or 0xE0020 <= code <= 0xE007F
        or unicodedata.category(character) in ("Mn", "Me", "Mc")
    )


def _joins(text: str, joiner: int) -> bool:
    """Whether the joiner at `joiner` glues two pictographs: one before it, marks aside, and one after."""
    if not _is_pictograph(text[joiner + 1]):
        return False
    index = joiner - 1
    while index > 0 and text[index] != _JOINER and _extends(text[index]):
        index -= 1
    return index >= 0 and _is_pictograph(text[index])


def _is_pictograph(character: str) -> bool:
    return unicodedata.category(character) == "So" or character in "‼⁉↔↕➡"


def _is_flag_letter(character: str) -> bool:
    return 0x1F1E6 <= ord(character) <= 0x1F1FF


def _flag_letters_before(text: str, index: int) -> int:
    count = 0
    while index > count and _is_flag_letter(text[index - count - 1]):
        count += 1
    return count


def _same_syllable(before: int, after: int) -> bool:
    if before in _LEADING:
        return after in _LEADING or after in _VOWELS or after in _HANGUL
    if before in _VOWELS or (before in _HANGUL and (before - 0xAC00) % 28 == 0):
        return after in _VOWELS or after in _TRAILING
    return (before in _TRAILING or before in _HANGUL) and after in _TRAILING
