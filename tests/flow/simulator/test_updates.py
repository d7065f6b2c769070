"""What people do in their chats, and how bots are told. The webhook is the simulator's own receiver."""

import base64
from typing import Any

import msgspec

from switchboard.testing import wait_until

CHAT = 7_000_000_000_123


async def hook(simulator: Any, **fields: Any) -> None:
    answer = await simulator.bot("setWebhook", url=f"{simulator.base}/receiver/bot", **fields)
    assert answer.status == 200


async def updates(simulator: Any, count: int) -> list[dict[str, Any]]:
    await wait_until(lambda: len(simulator.callbacks()) >= count)
    return [msgspec.json.decode(line["body"]) for line in simulator.callbacks()]


async def test_a_persons_text_is_posted_with_the_secret_token(simulator: Any) -> None:
    await hook(simulator, secret_token="sesame_1")

    said = await simulator.say(CHAT, "Hi there")
    (update,) = await updates(simulator, 1)

    message = update["message"]
    assert update["update_id"] > 0
    assert (message["chat"]["id"], message["from"]["id"], message["text"]) == (CHAT, CHAT, "Hi there")
    assert str(message["message_id"]) == said.json["message_id"]
    (kept,) = simulator.world.receivers.need("bot").kept
    assert kept.headers["x-telegram-bot-api-secret-token"] == "sesame_1"


async def test_updates_wait_for_a_webhook(simulator: Any) -> None:
    await simulator.send(CHAT)
    await simulator.say(CHAT, "Anybody there?")
    info = (await simulator.bot("getWebhookInfo")).json["result"]
    assert (info["url"], info["pending_update_count"]) == ("", 1)

    await hook(simulator)

    (update,) = await updates(simulator, 1)
    assert update["message"]["text"] == "Anybody there?"


async def test_an_update_refused_is_posted_again_in_its_turn(simulator: Any) -> None:
    await hook(simulator)
    behaviour = {"mode": "answer", "status": 503, "count": 2}
    await simulator.control("PUT", "receivers/bot", behaviour=behaviour)

    for text in ("one", "two"):
        await simulator.say(7, text)
    seen = await updates(simulator, 4)

    assert [update["message"]["text"] for update in seen] == ["one", "one", "one", "two"]
    assert len({update["update_id"] for update in seen}) == 2
    info = (await simulator.bot("getWebhookInfo")).json["result"]
    assert "503" in info["last_error_message"]


async def test_a_magic_chats_updates_are_posted_twice(simulator: Any) -> None:
    await hook(simulator)

    await simulator.say(7009915, "Echo")
    first, second = await updates(simulator, 2)

    assert first == second


async def test_a_pressed_button_asks_the_bot_until_it_answers(simulator: Any) -> None:
    await hook(simulator)
    keyboard = {"inline_keyboard": [[{"text": "Yes", "callback_data": "c:1"}]]}
    sent = await simulator.bot("sendMessage", chat_id=CHAT, text="Coming?", reply_markup=keyboard)
    message_id = str(sent.json["result"]["message_id"])

    press = {"channel": "TELEGRAM", "recipient": str(CHAT), "message_id": message_id, "button": "c:1"}
    assert (await simulator.control("POST", "press", **press)).status == 200
    (update,) = await updates(simulator, 1)
    query = update["callback_query"]
    first = await simulator.bot("answerCallbackQuery", callback_query_id=query["id"])
    again = await simulator.bot("answerCallbackQuery", callback_query_id=query["id"])

    assert (query["data"], query["from"]["id"], str(query["message"]["message_id"])) == ("c:1", CHAT, message_id)
    assert (first.status, again.status) == (200, 400)
    assert simulator.world.phones.message("TELEGRAM", str(CHAT), message_id).pressed == "Yes"


async def test_a_reply_keyboard_sends_its_words(simulator: Any) -> None:
    await hook(simulator)
    keyboard = {"keyboard": [["Hello"], [{"text": "Where I am", "request_location": True}]]}
    sent = await simulator.bot("sendMessage", chat_id=7, text="Say", reply_markup=keyboard)
    message_id = str(sent.json["result"]["message_id"])

    for words in ("Hello", "Where I am"):
        await simulator.control("POST", "press", channel="TELEGRAM", recipient="7", message_id=message_id, button=words)
    said, place = await updates(simulator, 2)

    assert said["message"]["text"] == "Hello"
    assert place["message"]["location"].keys() == {"latitude", "longitude"}


async def test_blocking_and_coming_back_are_told(simulator: Any) -> None:
    await hook(simulator)

    for blocked in (True, False):
        await simulator.control("PUT", "phones/TELEGRAM/7", blocked=blocked, to=str(simulator.bot_id))
    gone, back = await updates(simulator, 2)

    assert gone["my_chat_member"]["new_chat_member"]["status"] == "kicked"
    assert back["my_chat_member"]["new_chat_member"]["status"] == "member"


async def test_a_persons_file_can_be_fetched(simulator: Any) -> None:
    await hook(simulator)
    content = b"\x89PNG not really"
    media = {"kind": "photo", "name": "me.png", "content_base64": base64.b64encode(content).decode()}

    await simulator.say(7, media={**media, "content_type": "image/png"})
    (update,) = await updates(simulator, 1)
    largest = update["message"]["photo"][-1]
    file = (await simulator.bot("getFile", file_id=largest["file_id"])).json["result"]
    download = await simulator.request("GET", f"/file/bot{simulator.token}/{file['file_path']}")

    assert (download.content, download.headers["content-type"]) == (content, "image/png")


async def test_an_answer_quotes_the_message_it_answers(simulator: Any) -> None:
    await hook(simulator)
    sent = await simulator.send(7, "What time?")
    number = sent.json["result"]["message_id"]

    await simulator.say(7, "At six", reply_to=str(number))
    (update,) = await updates(simulator, 1)

    quoted = update["message"]["reply_to_message"]
    assert (quoted["message_id"], quoted["text"]) == (number, "What time?")


async def test_only_the_kinds_asked_for_are_posted(simulator: Any) -> None:
    await hook(simulator, allowed_updates=["callback_query"])

    answer = await simulator.say(7, "Hi")

    assert answer.status == 409
    assert (await simulator.bot("getWebhookInfo")).json["result"]["pending_update_count"] == 0


async def test_a_deleted_webhook_gets_nothing_more(simulator: Any) -> None:
    await hook(simulator)
    await simulator.bot("deleteWebhook")

    await simulator.say(7, "Hi")
    info = (await simulator.bot("getWebhookInfo")).json["result"]

    assert (info["url"], info["pending_update_count"]) == ("", 1)


async def test_with_two_bots_a_person_must_say_which(simulated: Any) -> None:
    async with simulated() as simulator:
        for token in ("1:token_of_one", "2:token_of_two"):
            await simulator.bot("getMe", token=token)
        order = {"channel": "TELEGRAM", "from": "7", "text": "Hi"}

        unclear = await simulator.control("POST", "inbound", **order)
        clear = await simulator.control("POST", "inbound", **order, to="2")

        assert (unclear.status, clear.status) == (409, 200)
        assert {bot.id: len(bot.pending) for bot in simulator.world.bots} == {1: 0, 2: 1}
