"""One try: sign, post, and say what it came to. The only IO is the guarded client's."""

import time
from collections.abc import Callable
from typing import Final

from switchboard.callbacks.schedule import Verdict, judge, retry_after_seconds
from switchboard.callbacks.signing import Try, headers
from switchboard.http.client import HttpAnswer, HttpClient, HttpError
from switchboard_callback_delivery.destination import Destination
from switchboard_callback_delivery.event import Event, Lease, Outcome
from switchboard_callback_delivery.token import TokenError, Tokens

#: How much of an answer is shown to the endpoint's owner.
ANSWER_BYTES: Final = 1024
_ERROR_LENGTH: Final = 300


class Poster:
    """Posts events. Never raises for what the endpoint does: that is its outcome."""

    def __init__(self, client: HttpClient, tokens: Tokens, unix_clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._tokens = tokens
        self._unix_clock = unix_clock

    async def post(
        self, event: Event, destination: Destination, lease: Lease | None = None, *, is_replay: bool = False
    ) -> Outcome:
        """Make one try. `is_replay`: its owner wants it sent again; so are all tries of a later round."""
        attempt = event.earlier_attempts + event.attempts + 1
        is_replay = is_replay or event.earlier_attempts > 0
        this = Try(event.id, event.trigger, event.sequence, attempt, event.event_at, is_replay)
        unix_now = self._unix_clock()
        # Receivers compare it with their own clock, so it is the real one and not the one that tests move.
        told = headers(this, event.body, destination.secrets_at(unix_now), int(unix_now))
        token = ""
        try:
            if destination.credentials is not None:
                token = await self._tokens.token(destination.credentials)
                told["authorization"] = f"Bearer {token}"
            answer = await self._client.request("POST", destination.url, body=event.body, headers=told)
        except (TokenError, HttpError) as error:
            return Outcome(
                event=event,
                lease=lease,
                verdict=Verdict.FAILED,
                error=str(error)[:_ERROR_LENGTH],
                kept_seconds=destination.kept_seconds,
                per_second=destination.per_second,
            )
        if answer.status == 401 and destination.credentials is not None:
            self._tokens.forget(destination.credentials, token)
        return self._answered(event, destination, lease, answer)

    def _answered(self, event: Event, destination: Destination, lease: Lease | None, answer: HttpAnswer) -> Outcome:
        verdict = judge(answer.status, destination.ends_on)
        return Outcome(
            event=event,
            lease=lease,
            verdict=verdict,
            status=answer.status,
            error="" if verdict is Verdict.TAKEN else f"answered {answer.status}",
            answer=b"" if verdict is Verdict.TAKEN else answer.body[:ANSWER_BYTES],
            retry_after_seconds=retry_after_seconds(answer.headers.get("retry-after"), self._unix_clock()),
            kept_seconds=destination.kept_seconds,
            per_second=destination.per_second,
        )
