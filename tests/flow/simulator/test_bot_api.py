"""The Bot API as bots see it: what it takes, what it refuses and in which words (channel-providers 8)."""

from typing import Any

import pytest

BIG_CHAT = 7_000_000_000_123


async def test_a_text_reaches_the_phone_and_the_answer_names_it(simulator: Any) -> None:
    answer = await simulator.send(BIG_CHAT, "Hello")

    assert answer.status == 200
    message = answer.json["result"]
    assert answer.json["ok"] is True
    assert message["chat"]["id"] == BIG_CHAT
    assert message["text"] == "Hello"
    assert simulator.shown(BIG_CHAT) == ["Hello"]


async def test_message_numbers_rise_and_stay_within_32_bits(simulator: Any) -> None:
    numbers = [(await simulator.send(777)).json["result"]["message_id"] for _ in range(3)]

    assert numbers == sorted(set(numbers))
    assert all(0 < number < 2**31 for number in numbers)


async def test_what_was_accepted_is_on_record_with_its_provider_id(simulator: Any) -> None:
    message = (await simulator.send(777, "Hello")).json["result"]

    (line,) = simulator.submissions()
    assert line["accepted"] is True
    assert line["provider_id"] == f"777:{message['message_id']}"
    assert (line["channel"], line["recipient"], line["text"], line["answer"]) == ("TELEGRAM", "777", "Hello", "200")
    assert simulator.token not in str(line)


async def test_what_was_refused_is_on_record_too(simulator: Any) -> None:
    await simulator.send(777, "")

    (line,) = simulator.submissions()
    assert (line["accepted"], line["answer"], line["provider_id"]) == (False, "400", "")


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no chat": ("sendMessage", {"text": "x"}, "chat_id is empty"),
    "a chat by name": ("sendMessage", {"chat_id": "@news", "text": "x"}, "chat not found"),
    "chat zero": ("sendMessage", {"chat_id": 0, "text": "x"}, "chat not found"),
    "a chat beyond 52 bits": ("sendMessage", {"chat_id": 2**60, "text": "x"}, "chat not found"),
    "a chat that is a boolean": ("sendMessage", {"chat_id": True, "text": "x"}, "chat_id is empty"),
    "no text": ("sendMessage", {"chat_id": 7}, "message text is empty"),
    "blank text": ("sendMessage", {"chat_id": 7, "text": " \n"}, "message text is empty"),
    "text that is only markup": (
        "sendMessage", {"chat_id": 7, "text": "<b></b>", "parse_mode": "HTML"}, "message text is empty",
    ),
    "4097 characters": ("sendMessage", {"chat_id": 7, "text": "x" * 4097}, "message is too long"),
    "2049 emoji, two units each": ("sendMessage", {"chat_id": 7, "text": "😀" * 2049}, "message is too long"),
    "an unknown parse mode": (
        "sendMessage", {"chat_id": 7, "text": "x", "parse_mode": "RTF"}, "unsupported parse_mode",
    ),
    "a tag left open": (
        "sendMessage", {"chat_id": 7, "text": "<b>x", "parse_mode": "HTML"}, "can't parse entities",
    ),
    "a tag closed twice": (
        "sendMessage", {"chat_id": 7, "text": "x</b>", "parse_mode": "HTML"}, "can't parse entities",
    ),
    "a tag that is none": (
        "sendMessage", {"chat_id": 7, "text": "<div>x</div>", "parse_mode": "HTML"}, "can't parse entities",
    ),
    "a bare smaller-than": (
        "sendMessage", {"chat_id": 7, "text": "1 < 2", "parse_mode": "HTML"}, "can't parse entities",
    ),
    "callback data of 65 bytes": (
        "sendMessage",
        {"chat_id": 7, "text": "x", "reply_markup": {"inline_keyboard": [[{"text": "A", "callback_data": "é" * 33}]]}},
        "BUTTON_DATA_INVALID",
    ),
    "a button that calls": (
        "sendMessage",
        {"chat_id": 7, "text": "x", "reply_markup": {"inline_keyboard": [[{"text": "A", "url": "tel:+46701"}]]}},
        "BUTTON_URL_INVALID",
    ),
    "a button that does two things": (
        "sendMessage",
        {
            "chat_id": 7,
            "text": "x",
            "reply_markup": {"inline_keyboard": [[{"text": "A", "url": "https://a.example", "callback_data": "a"}]]},
        },
        "can't parse inline keyboard button",
    ),
    "101 buttons": (
        "sendMessage",
        {
            "chat_id": 7,
            "text": "x",
            "reply_markup": {"inline_keyboard": [[{"text": "A", "callback_data": "a"}]] * 101},
        },
        "reply markup is too long",
    ),
    "markup that is no JSON": (
        "sendMessage", {"chat_id": 7, "text": "x", "reply_markup": "{"}, "can't parse reply keyboard markup",
    ),
    "rows that are no rows": (
        "sendMessage", {"chat_id": 7, "text": "x", "reply_markup": {"keyboard": ["A"]}}, "Array of Arrays",
    ),
    "a caption of 1025": (
        "sendPhoto", {"chat_id": 7, "photo": "https://a.example/p.jpg", "caption": "x" * 1025}, "caption is too long",
    ),
    "no photo": ("sendPhoto", {"chat_id": 7}, "there is no photo in the request"),
    "a photo over ftp": ("sendPhoto", {"chat_id": 7, "photo": "ftp://a.example/p.jpg"}, "wrong HTTP URL specified"),
    "a photo of no form": ("sendPhoto", {"chat_id": 7, "photo": "p.jpg"}, "wrong file identifier"),
    "an album of one": (
        "sendMediaGroup", {"chat_id": 7, "media": [{"type": "photo", "media": "https://a.example/1.jpg"}]}, "2 to 10",
    ),
    "an album that mixes": (
        "sendMediaGroup",
        {
            "chat_id": 7,
            "media": [
                {"type": "photo", "media": "https://a.example/1.jpg"},
                {"type": "document", "media": "https://a.example/1.pdf"},
            ],
        },
        "can't be mixed",
    ),
    "a place without longitude": ("sendLocation", {"chat_id": 7, "latitude": 1}, "must be numbers"),
    "a place off the earth": ("sendLocation", {"chat_id": 7, "latitude": 91, "longitude": 0}, "wrong latitude"),
    "a venue without address": (
        "sendVenue", {"chat_id": 7, "latitude": 1, "longitude": 1, "title": "Here"}, "must be non-empty",
    ),
    "a contact without number": ("sendContact", {"chat_id": 7, "first_name": "Ann"}, "phone number is empty"),
    "a contact without name": ("sendContact", {"chat_id": 7, "phone_number": "46701"}, "first name is empty"),
    "a large business card": (
        "sendContact",
        {"chat_id": 7, "phone_number": "46701", "first_name": "Ann", "vcard": "x" * 2049},
        "vCard is too long",
    ),
    "an unknown action": ("sendChatAction", {"chat_id": 7, "action": "dancing"}, "wrong parameter action"),
    "a webhook over ftp": ("setWebhook", {"url": "ftp://a.example"}, "invalid webhook URL"),
    "a secret with a space": (
        "setWebhook", {"url": "https://a.example", "secret_token": "a b"}, "unallowed characters",
    ),
    "a query nobody asked": ("answerCallbackQuery", {"callback_query_id": "1"}, "query is too old"),
    "a file nobody sent": ("getFile", {"file_id": "F1"}, "invalid file_id"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
async def test_it_refuses_in_the_bot_apis_own_words(simulator: Any, case: str) -> None:
    method, fields, words = REFUSALS[case]

    answer = await simulator.bot(method, **fields)

    assert answer.status == 400
    assert answer.json["ok"] is False
    assert answer.json["error_code"] == 400
    assert answer.json["description"].startswith("Bad Request: ")
    assert words in answer.json["description"]
    assert simulator.shown(7) == []


@pytest.mark.parametrize(
    ("token", "status"),
    [("nonsense", 404), ("1:revoked_long_ago", 401)],
    ids=["a malformed token", "a revoked token"],
)
async def test_a_wrong_token_is_refused(simulator: Any, token: str, status: int) -> None:
    answer = await simulator.bot("getMe", token=token)

    assert (answer.status, answer.json["error_code"]) == (status, status)


async def test_an_unknown_method_is_not_found(simulator: Any) -> None:
    assert (await simulator.bot("sendDream", chat_id=7)).status == 404


async def test_the_case_of_a_methods_name_does_not_matter(simulator: Any) -> None:
    assert (await simulator.bot("SENDmessage", chat_id=7, text="Hello")).status == 200


async def test_the_limit_of_a_text_counts_after_its_markup(simulator: Any) -> None:
    answer = await simulator.bot("sendMessage", chat_id=7, text=f"<b>{'x' * 4095}</b>&amp;", parse_mode="HTML")

    assert answer.status == 200
    assert simulator.shown(7) == ["x" * 4095 + "&"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"chat_id": 7, "text": "Hi \xc3\xa5"}'),
        ("application/x-www-form-urlencoded", b"chat_id=7&text=Hi+%C3%A5"),
        (
            "multipart/form-data; boundary=XX",
            b'--XX\r\nContent-Disposition: form-data; name="chat_id"\r\n\r\n7\r\n--XX\r\n'
            b'Content-Disposition: form-data; name="text"\r\n\r\nHi \xc3\xa5\r\n--XX--\r\n',
        ),
    ],
    ids=["json", "form", "multipart"],
)
async def test_a_call_may_be_json_a_form_or_multipart(simulator: Any, content_type: str, body: bytes) -> None:
    answer = await simulator.request("POST", f"/bot{simulator.token}/sendMessage", body, {"content-type": content_type})

    assert answer.status == 200
    assert simulator.shown(7) == ["Hi å"]


async def test_a_call_may_be_a_get_with_a_query(simulator: Any) -> None:
    answer = await simulator.request("GET", f"/bot{simulator.token}/sendMessage?chat_id=7&text=Hello")

    assert answer.status == 200
    assert simulator.shown(7) == ["Hello"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff"])
async def test_a_body_that_cannot_be_read_is_a_bad_request(simulator: Any, body: bytes) -> None:
    headers = {"content-type": "application/json"}

    answer = await simulator.request("POST", f"/bot{simulator.token}/sendMessage", body, headers)

    assert answer.status == 400


async def test_an_upload_comes_back_byte_for_byte(simulator: Any) -> None:
    content = bytes(range(256)) * 3 + b"\r\n\n\r"
    form = (
        b'--XX\r\nContent-Disposition: form-data; name="chat_id"\r\n\r\n7\r\n--XX\r\n'
        b'Content-Disposition: form-data; name="document"; filename="a b.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n--XX--\r\n"
    )
    headers = {"content-type": "multipart/form-data; boundary=XX"}

    sent = await simulator.request("POST", f"/bot{simulator.token}/sendDocument", form, headers)
    file_id = sent.json["result"]["document"]["file_id"]
    file = (await simulator.bot("getFile", file_id=file_id)).json["result"]
    download = await simulator.request("GET", f"/file/bot{simulator.token}/{file['file_path']}")

    assert file["file_size"] == len(content)
    assert download.content == content


async def test_an_album_is_as_many_messages_as_it_has_media(simulator: Any) -> None:
    media = [
        {"type": "photo", "media": f"https://a.example/{number}.jpg", "caption": f"No. {number}"} for number in (1, 2)
    ]

    answer = await simulator.bot("sendMediaGroup", chat_id=7, media=media)

    messages = answer.json["result"]
    assert [message["caption"] for message in messages] == ["No. 1", "No. 2"]
    assert simulator.shown(7) == ["No. 1", "No. 2"]
    (line,) = simulator.submissions()
    assert line["provider_id"] == ",".join(f"7:{message['message_id']}" for message in messages)


SENDS: list[tuple[str, dict[str, Any], str]] = [
    ("sendPhoto", {"photo": "https://a.example/1.jpg"}, "photo"),
    ("sendVideo", {"video": "https://a.example/1.mp4"}, "video"),
    ("sendAudio", {"audio": "https://a.example/1.mp3"}, "audio"),
    ("sendVoice", {"voice": "https://a.example/1.ogg"}, "voice"),
    ("sendDocument", {"document": "https://a.example/1.pdf"}, "document"),
    ("sendAnimation", {"animation": "https://a.example/1.gif"}, "animation"),
    ("sendSticker", {"sticker": "https://a.example/1.webp"}, "sticker"),
    ("sendLocation", {"latitude": 59.3, "longitude": 18.0}, "location"),
    ("sendVenue", {"latitude": 59.3, "longitude": 18.0, "title": "Here", "address": "Street 1"}, "venue"),
    ("sendContact", {"phone_number": "46701", "first_name": "Ann"}, "contact"),
]


@pytest.mark.parametrize(("method", "fields", "key"), SENDS, ids=[case[0] for case in SENDS])
async def test_every_kind_of_message_is_answered_with_its_own_field(
    simulator: Any, method: str, fields: dict[str, Any], key: str
) -> None:
    answer = await simulator.bot(method, chat_id=7, **fields)

    assert answer.status == 200
    assert key in answer.json["result"]
    assert len(simulator.shown(7)) == 1


async def test_a_person_who_blocked_the_bot_gets_nothing(simulator: Any) -> None:
    await simulator.send(7, "Before")
    await simulator.control("PUT", "phones/TELEGRAM/7", blocked=True, to=str(simulator.bot_id))

    answer = await simulator.send(7, "During")
    await simulator.control("PUT", "phones/TELEGRAM/7", blocked=False, to=str(simulator.bot_id))
    await simulator.send(7, "After")

    assert (answer.status, answer.json["description"]) == (403, "Forbidden: bot was blocked by the user")
    assert simulator.shown(7) == ["Before", "After"]


async def test_an_answer_to_a_message_that_is_not_there_is_refused(simulator: Any) -> None:
    await simulator.send(7)

    answer = await simulator.bot("sendMessage", chat_id=7, text="x", reply_parameters={"message_id": 1})

    assert "message to be replied not found" in answer.json["description"]


async def test_nothing_is_accepted_that_cannot_be_put_on_record(
    simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(simulator.world.submissions, "append", full)

    answer = await simulator.send(7)

    assert answer.status == 500
    assert simulator.shown(7) == []
