"""Capability queries: taken, and answered by callbacks (conversation-api 4.7)."""

from typing import Final

from msgspec import Struct

from switchboard.configuration import App, Configuration
from switchboard.identity import ChannelIdentity
from switchboard.ids import ContactId, MessageId, ProjectId, mint, time_of
from switchboard.records import CapabilityAsked, ProcessingMode
from switchboard.store import contacts
from switchboard.store.contacts import Addressed
from switchboard.store.pool import Pool
from switchboard.validation import Violation
from switchboard_ingress.body import Body
from switchboard_ingress.checks import at_most
from switchboard_ingress.errors import BadRequest, NotFound
from switchboard_ingress.requests import CapabilityRequest, Recipient
from switchboard_ingress.send import Sending, SendRules, find_app, identities_of

MAX_REQUEST_ID: Final = 255
_body: Final = Body(CapabilityRequest)


class CapabilityAnswer(Struct, frozen=True, omit_defaults=True):
    """The query as it was taken. The answers come as CAPABILITY callbacks, one for each channel."""

    app_id: str
    recipient: Recipient
    request_id: str


class Capabilities:
    """Takes queries to the broker."""

    def __init__(
        self, pool: Pool, configuration: Configuration, sending: Sending, rules: SendRules, *, strict_ids: bool = True
    ) -> None:
        self._pool = pool
        self._configuration = configuration
        self._sending = sending
        self._rules = rules
        self._strict_ids = strict_ids

    async def ask(self, project_id: ProjectId, raw: bytes) -> CapabilityAnswer:
        """Take a query. Raises BadRequest, NotFound for a contact that does not exist, Unavailable."""
        request = _body.read(raw)
        app = await find_app(self._configuration, project_id, request.app_id, strict=self._strict_ids)
        found: list[Violation] = list(at_most("request_id", request.request_id, MAX_REQUEST_ID))
        identities = identities_of(request.recipient, app.processing_mode, app, self._rules, found)
        if found:
            raise BadRequest(*found)
        contact_id = None if request.recipient.contact_id is None else ContactId(request.recipient.contact_id)
        await self._find(app, identities, contact_id)
        query_id = MessageId(mint())
        request_id = request.request_id or query_id
        record = CapabilityAsked(
            query_id=query_id,
            project_id=project_id,
            app_id=app.id,
            asked_at=time_of(query_id),
            request_id=request_id,
            mode=app.processing_mode,
            identities=identities,
            contact_id=contact_id,
        )
        await self._sending.accept_other(record, query_id)
        return CapabilityAnswer(app.id, request.recipient, request_id)

    async def _find(self, app: App, identities: tuple[ChannelIdentity, ...], contact_id: ContactId | None) -> None:
        """Only contacts that exist can be asked about. In dispatch mode there are none, and anybody can."""
        if app.processing_mode is not ProcessingMode.CONVERSATION:
            return
        async with self._pool.acquire() as connection, connection.transaction():
            asked = Addressed("asked", app.project_id, identities, contact_id, creates=False)
            found = await contacts.match(connection, [asked])
        if not found:
            raise NotFound("There is no such contact in the project.")
