"""Reads what hangs under a message (`reply_markup`) and checks the text's own markup (`parse_mode`)."""

import html
import html.parser
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from switchboard_simulator.phones import Button
from switchboard_simulator.telegram.refused import bad_request

MOST_BUTTONS: Final = 100
MOST_CALLBACK_BYTES: Final = 64
_TAGS: Final = frozenset(
    (
        "a", "b", "blockquote", "code", "del", "em", "i", "ins", "pre", "s", "span", "strike", "strong",
        "tg-emoji", "tg-spoiler", "u",
    )
)  # fmt: skip
#: The only named characters the Bot API knows.
_NAMED: Final = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
_URL_SCHEMES: Final = frozenset(("http", "https", "tg"))

Rows = tuple[tuple[Button, ...], ...]


def read_markup(value: object) -> tuple[Rows, dict[str, Any] | None]:
    """The rows of buttons, and the inline keyboard as the message echoes it. Raises Refused."""
    markup = _as_object(value)
    if markup is None:
        return (), None
    if "inline_keyboard" in markup:
        rows = _rows(markup["inline_keyboard"], _inline_button)
        return rows, {"inline_keyboard": markup["inline_keyboard"]}
    if "keyboard" in markup:
        return _rows(markup["keyboard"], _reply_button), None
    if "remove_keyboard" in markup or "force_reply" in markup:
        return (), None
    raise bad_request("can't parse reply keyboard markup JSON object")


def _as_object(value: object) -> dict[str, Any] | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise bad_request("can't parse reply keyboard markup JSON object") from None
    if not isinstance(value, dict):
        raise bad_request("object expected as reply markup")
    return value


def _rows(value: object, read: Callable[[object], Button]) -> Rows:
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise bad_request('field "keyboard" of the reply markup must be an Array of Arrays')
    if sum(len(row) for row in value) > MOST_BUTTONS:
        raise bad_request("reply markup is too long")
    return tuple(tuple(read(button) for button in row) for row in value if row)


def _inline_button(value: object) -> Button:
    text = _button_text(value)
    assert isinstance(value, dict)
    actions = value.keys() & {"callback_data", "url", "web_app", "login_url", "switch_inline_query",
                              "switch_inline_query_current_chat", "copy_text", "callback_game", "pay"}  # fmt: skip
    if len(actions) != 1:
        raise bad_request("can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard")
    if "callback_data" in actions:
        data = value["callback_data"]
        if not isinstance(data, str) or not 1 <= len(data.encode()) <= MOST_CALLBACK_BYTES:
            raise bad_request("BUTTON_DATA_INVALID")
        return Button(text, data=data)
    url = value.get("url", "")
    if "url" in actions and not is_link(url):
        raise bad_request("BUTTON_URL_INVALID")
    return Button(text, url=str(url))


def _reply_button(value: object) -> Button:
    if isinstance(value, str):
        value = {"text": value}
    text = _button_text(value)
    assert isinstance(value, dict)
    if value.get("request_location"):
        return Button(text, asks_for="location")
    if value.get("request_contact"):
        return Button(text, asks_for="contact")
    return Button(text, asks_for="text")


def _button_text(value: object) -> str:
    if not isinstance(value, dict):
        raise bad_request("can't parse keyboard button: an Object is expected")
    text = value.get("text")
    if not isinstance(text, str) or not text.strip():
        raise bad_request('can\'t parse keyboard button: field "text" must be a non-empty String')
    return text


def is_link(value: object) -> bool:
    """Tell whether the Bot API takes this as a link: http, https or tg, with a host."""
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme.lower() in _URL_SCHEMES and bool(parts.netloc)
    except ValueError:
        return False


def plain_text(text: str, parse_mode: object) -> str:
    """What a person reads of `text`. Raises Refused when its markup cannot be read.

    HTML is parsed as the Bot API does. The two Markdown modes are taken as they are: their text shows unparsed.
    """
    match str(parse_mode or "").lower():
        case "" | "markdown" | "markdownv2":
            return text
        case "html":
            return _html_text(text)
        case _:
            raise bad_request("unsupported parse_mode")


def _html_text(text: str) -> str:
    parser = _Entities()
    parser.feed(text)
    parser.close()
    if parser.open:
        raise bad_request(f"can't parse entities: Can't find end tag corresponding to start tag \"{parser.open[-1]}\"")
    return "".join(parser.text)


class _Entities(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_data(self, data: str) -> None:
        if "<" in data:
            raise bad_request("can't parse entities: Unclosed start tag")
        self.text.append(data)

    def handle_entityref(self, name: str) -> None:
        self.text.append(_NAMED.get(name, f"&{name};"))

    def handle_charref(self, name: str) -> None:
        self.text.append(html.unescape(f"&#{name};"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _TAGS:
            raise bad_request(f'can\'t parse entities: Unsupported start tag "{tag}"')
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            raise bad_request(f'can\'t parse entities: Unexpected end tag "{tag}"')
