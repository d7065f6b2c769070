"""TELEGRAM as the host finds it: wires render, send and webhook, nothing else."""

from collections.abc import Mapping
from typing import Final

import msgspec
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from switchboard.channel.contract import Account, Attempt, Capability, SendResult, WebhookAnswer, WebhookRequest
from switchboard.channel.errors import NotConfigured, Unsupported
from switchboard.channel.outcome import Rejected
from switchboard.content import AppEvent
from switchboard.http.client import HttpClient
from switchboard.identity import ChannelIdentity
from switchboard_channels.telegram.chat import act, look_up
from switchboard_channels.telegram.manifest import MANIFEST
from switchboard_channels.telegram.render import Call, Rendered, render
from switchboard_channels.telegram.send import BotAnswer, BotApi, send
from switchboard_channels.telegram.webhook import ALLOWED_UPDATES, parse, secret_of

#: Calls beside sends: nobody waits long for them.
_SIDE_CALL_SECONDS: Final = 5.0


class TelegramSettings(BaseSettings):
    """Where the Bot API is."""

    model_config = SettingsConfigDict(env_prefix="SWITCHBOARD_TELEGRAM_", frozen=True, extra="ignore")

    api_url: str = Field(
        default="https://api.telegram.org",
        pattern="^https?://",
        description="The Bot API's address without a path: Telegram's own, a local Bot API server, or the simulator.",
    )


class TelegramAdapter:
    """The Bot API: one call an attempt in nearly all cases, facts by webhook, no receipts."""

    manifest = MANIFEST

    def __init__(self, settings: TelegramSettings | None = None) -> None:
        self._base_url = (settings or TelegramSettings()).api_url.rstrip("/")

    async def send(self, attempt: Attempt, account: Account, http: HttpClient) -> SendResult:
        """Submit once. Never raises for what Telegram does. Raises NotConfigured without a token."""
        bot = self._bot(account, http)
        try:
            calls = self._rendered(attempt).calls
        except Unsupported as error:
            return SendResult(Rejected(error.reason))
        return await send(bot, calls)

    def postbacks(self, attempt: Attempt) -> Mapping[str, str]:
        """What the host keeps before it sends: postbacks too long for a button, by key. Pure."""
        try:
            return self._rendered(attempt).kept_postbacks
        except Unsupported:
            return {}

    def parse_webhook(self, request: WebhookRequest, account: Account) -> WebhookAnswer:
        """Verify the secret header and read the update. Raises InvalidWebhook."""
        parsed = parse(request, account)
        if not parsed.callback_query_id:
            return WebhookAnswer(parsed.facts)

        async def answer_callback_query(http: HttpClient) -> None:
            # Too late is "query is too old": the button has stopped turning by itself.
            query = Call("answerCallbackQuery", {"callback_query_id": parsed.callback_query_id})
            await self._bot(account, http).call(query, _SIDE_CALL_SECONDS)

        return WebhookAnswer(parsed.facts, follow_ups=(answer_callback_query,))

    async def register_webhook(self, account: Account, url: str, http: HttpClient) -> None:
        """Tell Telegram to post this bot's updates to `url`. Raises NotConfigured, NotSent, NoAnswer."""
        parameters = {"url": url, "secret_token": secret_of(account), "allowed_updates": ALLOWED_UPDATES}
        answer = await self._bot(account, http).call(Call("setWebhook", parameters), _SIDE_CALL_SECONDS)
        try:
            said = msgspec.json.decode(answer.body, type=BotAnswer)
        except msgspec.DecodeError:
            raise NotConfigured(f"setWebhook was answered {answer.status} and no JSON") from None
        if not said.ok:
            raise NotConfigured(f"setWebhook was refused: {answer.status} {said.description[:200]}")

    async def send_event(
        self, event: AppEvent, identity: ChannelIdentity, account: Account, http: HttpClient
    ) -> SendResult:
        """Show that somebody is typing: for five seconds, or until the next message. Raises NotConfigured."""
        return await act(self._bot(account, http), event, identity.identity)

    async def capability(self, identity: ChannelIdentity, account: Account, http: HttpClient) -> Capability:
        """Whether the bot knows the chat. Raises NotConfigured."""
        return await look_up(self._bot(account, http), identity.identity)

    def _bot(self, account: Account, http: HttpClient) -> BotApi:
        token = account.credentials.get("token", "")
        if not token or not token.replace(":", "").replace("-", "").replace("_", "").isalnum():
            raise NotConfigured("telegram_credentials.token is missing or malformed")
        return BotApi(http, self._base_url, token)

    @staticmethod
    def _rendered(attempt: Attempt) -> Rendered:
        return render(attempt.message, attempt.identity.identity, attempt.message_id, attempt.channel_properties)


ADAPTER: Final = TelegramAdapter
