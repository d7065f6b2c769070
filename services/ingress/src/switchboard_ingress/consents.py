"""Who left which list of an app, read only (conversation-api 4.8)."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from switchboard.callbacks.compact import timestamp
from switchboard.ids import AppId, ProjectId
from switchboard.rules.consent import ConsentList
from switchboard.store import consents as store
from switchboard.store.pool import Pool
from switchboard.validation import Violation
from switchboard_ingress.apps import Apps
from switchboard_ingress.errors import BadRequest
from switchboard_ingress.paging import PageTokens, page_size

MOST_A_PAGE: Final = 50


class Listed(Struct, frozen=True):
    """Somebody on a list."""

    identity: str


class ConsentIdentities(Struct, frozen=True):
    identities: list[Listed]
    next_page_token: str


class AuditRecord(Struct, frozen=True):
    """One change of consent."""

    origin: str
    operation: str
    list_type: str
    project_id: str
    app_id: str
    datetime: str


class ConsentAudit(Struct, frozen=True):
    identity: Listed
    audit_records: list[AuditRecord]


class Consents:
    """The consent lists of all apps."""

    def __init__(self, pool: Pool, apps: Apps, tokens: PageTokens) -> None:
        self._pool = pool
        self._apps = apps
        self._tokens = tokens

    async def page(
        self, project_id: ProjectId, app_id: str, list_type: str, query: Mapping[str, str]
    ) -> ConsentIdentities:
        """One page of a list, in the order of the identities. Raises NotFound, BadRequest."""
        app = await self._apps.find(project_id, app_id)
        try:
            asked = ConsentList(list_type)
        except ValueError:
            raise BadRequest(Violation("list_type", f"one of {', '.join(ConsentList)} is expected")) from None
        size = page_size(query.get("page_size", ""), MOST_A_PAGE)
        bound = (project_id, app.id, asked)
        after = self._tokens.read(query.get("page_token", ""), bound)
        found = await store.page(self._pool, app.id, asked, after, size + 1)
        token = self._tokens.make(found[size - 1], bound) if len(found) > size else ""
        return ConsentIdentities([Listed(identity) for identity in found[:size]], token)

    async def audit(self, project_id: ProjectId, app_id: str, identity: str) -> ConsentAudit:
        """Every change of one identity's consent, oldest first; none for somebody unknown. Raises NotFound."""
        app = await self._apps.find(project_id, app_id)
        # Numbers are kept without "+", which a client may not have percent-encoded.
        spelled = identity.strip().removeprefix("+")
        records = await store.audit(self._pool, AppId(app.id), spelled)
        return ConsentAudit(
            Listed(spelled),
            [
                AuditRecord(
                    record.origin, record.operation, record.list_type, record.project_id, record.app_id,
                    timestamp(record.at),
                )
                for record in records
            ],
        )  # fmt: skip
