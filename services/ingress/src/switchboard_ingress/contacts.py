"""Contacts: made, read, changed, merged, deleted (conversation-api 4.4)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from switchboard.channel.manifest import Manifest
from switchboard.configuration import Configuration
from switchboard.contact import UNKNOWN_NAME, Contact
from switchboard.identity import (
    APP_SCOPED_CHANNELS,
    CONTRACT_CHANNELS,
    PHONE_CHANNELS,
    ChannelIdentity,
    ChannelName,
    normal_msisdn,
)
from switchboard.ids import AppId, ContactId, ProjectId, mint
from switchboard.records import (
    ContactCreated,
    ContactDeleted,
    ContactMerged,
    ContactUpdated,
    ConversationDeleted,
)
from switchboard.rules.recipient import merged
from switchboard.store import contacts as store
from switchboard.store import conversations
from switchboard.store.contacts import Conflict
from switchboard.validation import Violation
from switchboard_ingress.body import Body
from switchboard_ingress.checks import MAX_METADATA, at_most, check_identity
from switchboard_ingress.errors import BadRequest, NotFound
from switchboard_ingress.paging import PageTokens, page_size
from switchboard_ingress.patching import patched
from switchboard_ingress.requests import ContactInput, ContactMergeRequest, ProfileRequest
from switchboard_ingress.writing import Writer, Writing

MOST_A_PAGE: Final = 20
MAX_TEXT: Final = 1024
#: Contacts are looked for by it, and an index holds no more.
MAX_EXTERNAL_ID: Final = 512
#: The channels that tell a person's name (conversation-api 4.4).
PROFILE_CHANNELS: Final = frozenset({"MESSENGER", "INSTAGRAM", "VIBER", "LINE"})
LANGUAGES: Final = frozenset(
    (
        "UNSPECIFIED", "AF", "SQ", "AR", "AZ", "BN", "BG", "CA", "ZH", "ZH_CN", "ZH_HK", "ZH_TW", "HR", "CS", "DA",
        "NL", "EN", "EN_GB", "EN_US", "ET", "FIL", "FI", "FR", "DE", "EL", "GU", "HA", "HE", "HI", "HU", "ID", "GA",
        "IT", "JA", "KN", "KK", "KO", "LO", "LV", "LT", "MK", "MS", "ML", "MR", "NB", "FA", "PL", "PT", "PT_BR",
        "PT_PT", "PA", "RO", "RU", "SR", "SK", "SL", "ES", "ES_AR", "ES_ES", "ES_MX", "SW", "SV", "TA", "TE", "TH",
        "TR", "UK", "UR", "UZ", "VI", "ZU",
    )
)  # fmt: skip
_LIMITS: Final = {
    "display_name": MAX_TEXT,
    "email": MAX_TEXT,
    "external_id": MAX_EXTERNAL_ID,
    "metadata": MAX_METADATA,
}
FIELDS: Final = Contact.__struct_fields__

_body: Final = Body(ContactInput)
_merge: Final = Body(ContactMergeRequest)
_profile: Final = Body(ProfileRequest)


class ContactList(Struct, frozen=True):
    contacts: list[Contact]
    next_page_token: str


class ConflictList(Struct, frozen=True):
    conflicts: list[Conflict]
    next_page_token: str


class Contacts:
    """The contacts of all projects, by the API's rules."""

    def __init__(
        self,
        writer: Writer,
        configuration: Configuration,
        manifests: Mapping[ChannelName, Manifest],
        tokens: PageTokens,
    ) -> None:
        self._writer = writer
        self._configuration = configuration
        self._manifests = manifests
        self._tokens = tokens

    async def page(self, project_id: ProjectId, query: Mapping[str, str]) -> ContactList:
        """One page, the oldest first: all, those with an external id, or the holders of an identity."""
        external_id, channel, identity = (query.get(name, "") for name in ("external_id", "channel", "identity"))
        if external_id and (channel or identity):
            raise BadRequest(Violation("external_id", "goes with neither channel nor identity"))
        if bool(channel) != bool(identity):
            raise BadRequest(Violation("identity" if channel else "channel", "channel and identity go together"))
        if channel and channel not in CONTRACT_CHANNELS:
            raise BadRequest(Violation("channel", "unknown channel"))
        size = page_size(query.get("page_size", ""), MOST_A_PAGE)
        bound = (project_id, "contacts", external_id, channel, identity)
        after = self._tokens.read(query.get("page_token", ""), bound)
        async with self._writer.pool.acquire() as connection:
            found = await store.page(
                connection, project_id, external_id=external_id, channel=channel,
                identity=self._spelled(channel, identity), after=after, limit=size + 1,
            )  # fmt: skip
        token = self._tokens.make(found[size - 1].id, bound) if len(found) > size else ""
        return ContactList(found[:size], token)

    async def get(self, project_id: ProjectId, contact_id: str) -> Contact:
        """One contact. Raises NotFound."""
        async with self._writer.pool.acquire() as connection:
            contact = await store.read(connection, project_id, ContactId(contact_id))
        if contact is None:
            raise no_such_contact()
        return contact

    async def create(self, project_id: ProjectId, raw: bytes) -> Contact:
        """Make a contact. Raises BadRequest."""
        contact = await self._contact(project_id, ContactId(mint()), _body.read(raw))
        async with self._writer.writing(project_id) as writing:
            await self._lock_identities(writing, contact)
            await store.insert(writing.connection, [(project_id, contact)], told=0)
            shared = await store.duplicates(writing.connection, project_id, contact.channel_identities)
            sequence = await store.tell(writing.connection, contact.id, 2 if shared else 1)
            await writing.tell(ContactCreated, contact.id, sequence, contact=contact, duplicates=shared)
        return contact

    async def change(self, project_id: ProjectId, contact_id: str, raw: bytes, mask: Sequence[str] | None) -> Contact:
        """Change what the mask, or else the body, names. Raises NotFound, BadRequest."""
        given = _body.plain(raw or b"{}")
        if not isinstance(given, dict):
            _body.convert(given)  # refuses it by name
        async with self._writer.writing(project_id) as writing:
            before = await self._locked(writing, contact_id)
            changed = await self._patched(project_id, before, given, mask)
            await self._lock_identities(writing, changed)
            if changed == before:
                return before
            await store.replace(writing.connection, project_id, changed)
            new = [one for one in changed.channel_identities if one not in before.channel_identities]
            shared = await store.duplicates(writing.connection, project_id, new) if new else ()
            sequence = await store.tell(writing.connection, changed.id, 2 if shared else 1)
            await writing.tell(ContactUpdated, changed.id, sequence, contact=changed, duplicates=shared)
        return changed

    async def delete(self, project_id: ProjectId, contact_id: str) -> None:
        """Delete a contact with its conversations and their messages. Raises NotFound."""
        async with self._writer.writing(project_id) as writing:
            contact = await self._locked(writing, contact_id)
            theirs = await conversations.lock_of_contacts(writing.connection, [contact.id])
            await conversations.delete(writing.connection, [item.id for item in theirs])
            await conversations.forget_contact(writing.connection, contact.id)
            sequence = await store.tell(writing.connection, contact.id)
            await store.delete(writing.connection, contact.id)
            for item in theirs:
                await writing.tell(ConversationDeleted, item.id, item.told + 1, conversation=item.conversation)
            await writing.tell(ContactDeleted, contact.id, sequence, contact=contact)

    async def merge(self, project_id: ProjectId, destination_id: str, raw: bytes) -> Contact:
        """Make one contact of two: the destination stays. Raises NotFound, BadRequest."""
        request = _merge.read(raw)
        if request.source_id == destination_id:
            raise BadRequest(Violation("source_id", "a contact cannot be merged into itself"))
        if "\x00" in request.source_id:
            raise no_such_contact()
        async with self._writer.writing(project_id) as writing:
            ids = (ContactId(destination_id), ContactId(request.source_id))
            both = await store.lock(writing.connection, project_id, ids)
            if len(both) < 2:
                raise no_such_contact()
            destination, source = both[ids[0]], both[ids[1]]
            kept = merged(destination, source)
            await store.delete(writing.connection, source.id)
            await store.replace(writing.connection, project_id, kept)
            gone = await conversations.move(writing.connection, source.id, destination.id)
            sequence = await store.tell(writing.connection, kept.id)
            for item in gone:
                await writing.tell(ConversationDeleted, item.id, item.told + 1, conversation=item.conversation)
            await writing.tell(ContactMerged, kept.id, sequence, preserved=kept, deleted=source)
        return kept

    async def conflicts(self, project_id: ProjectId, query: Mapping[str, str]) -> ConflictList:
        """Identities that several contacts hold."""
        size = page_size(query.get("page_size", ""), MOST_A_PAGE)
        bound = (project_id, "identityConflicts")
        after = self._tokens.read(query.get("page_token", ""), bound)
        async with self._writer.pool.acquire() as connection:
            found = await store.conflicts(connection, project_id, after=after, limit=size + 1)
        token = self._tokens.make(found[size - 1].identity, bound) if len(found) > size else ""
        return ConflictList(found[:size], token)

    async def profile(self, project_id: ProjectId, raw: bytes) -> Any:
        """The name a channel knows a person by. Raises BadRequest: no channel that is installed here tells it."""
        request = _profile.read(raw)
        if request.channel not in PROFILE_CHANNELS:
            raise BadRequest(Violation("channel", f"one of {', '.join(sorted(PROFILE_CHANNELS))} is expected"))
        app = await self._configuration.app(AppId(request.app_id)) if "\x00" not in request.app_id else None
        if app is None or app.project_id != project_id:
            raise NotFound("There is no such app in the project.")
        raise BadRequest(Violation("channel", f"UNSUPPORTED: {request.channel} is not installed here"))

    # -- values

    async def _locked(self, writing: Writing, contact_id: str) -> Contact:
        wanted = ContactId(contact_id)
        found = (await store.lock(writing.connection, writing.project_id, [wanted])).get(wanted)
        if found is None:
            raise no_such_contact()
        return found

    @staticmethod
    async def _lock_identities(writing: Writing, contact: Contact) -> None:
        await store.lock_identities(
            writing.connection, [(writing.project_id, one) for one in contact.channel_identities]
        )

    async def _patched(
        self, project_id: ProjectId, before: Contact, given: Mapping[str, Any], mask: Sequence[str] | None
    ) -> Contact:
        current = {name: value for name, value in msgspec.to_builtins(before).items() if name != "id"}
        changed = {name: value for name, value in patched(current, given, mask, FIELDS).items() if name != "id"}
        return await self._contact(project_id, before.id, _body.convert(changed))

    async def _contact(self, project_id: ProjectId, contact_id: ContactId, given: ContactInput) -> Contact:
        """The contact that an input makes. Raises BadRequest."""
        found: list[Violation] = []
        identities: dict[ChannelIdentity, None] = {}
        if not given.channel_identities:
            found.append(Violation("channel_identities", "at least one is required"))
        for number, one in enumerate(given.channel_identities):
            identity = await self._identity(project_id, f"channel_identities[{number}]", one, found)
            if identity in identities:
                found.append(Violation(f"channel_identities[{number}]", "is there already"))
            identities[identity] = None
        for number, channel in enumerate(given.channel_priority):
            if channel not in CONTRACT_CHANNELS:
                found.append(Violation(f"channel_priority[{number}]", "unknown channel"))
            elif channel in given.channel_priority[:number]:
                found.append(Violation(f"channel_priority[{number}]", f"{channel} is there already"))
        for name, limit in _LIMITS.items():
            found += at_most(name, getattr(given, name), limit)
        if given.language not in LANGUAGES:
            found.append(Violation("language", "unknown language"))
        if found:
            raise BadRequest(*found)
        return Contact(
            contact_id, tuple(identities), tuple(map(ChannelName, given.channel_priority)),
            given.display_name or UNKNOWN_NAME, given.email, given.external_id, given.metadata, given.language,
        )  # fmt: skip

    async def _identity(self, project_id: ProjectId, where: str, given: Any, found: list[Violation]) -> ChannelIdentity:
        channel = ChannelName(given.channel)
        if channel not in CONTRACT_CHANNELS:
            found.append(Violation(f"{where}.channel", "unknown channel"))
        spelled = given.identity
        if wrong := list(check_identity(f"{where}.identity", spelled)):
            found += wrong
        else:
            try:
                spelled = self._normal(channel, spelled)
            except ValueError as error:
                found.append(Violation(f"{where}.identity", str(error)))
        manifest = self._manifests.get(channel)
        is_scoped = channel in APP_SCOPED_CHANNELS or (manifest is not None and manifest.app_scoped)
        if not is_scoped:
            return ChannelIdentity(channel, spelled)
        app = (
            await self._configuration.app(AppId(given.app_id)) if given.app_id and "\x00" not in given.app_id else None
        )
        if app is None or app.project_id != project_id:
            found.append(Violation(f"{where}.app_id", f"identities on {channel} need an app of the project"))
        return ChannelIdentity(channel, spelled, given.app_id)

    def _normal(self, channel: ChannelName, identity: str) -> str:
        if manifest := self._manifests.get(channel):
            return manifest.normal_identity(identity)
        return normal_msisdn(identity) if channel in PHONE_CHANNELS else identity

    def _spelled(self, channel: str, identity: str) -> str:
        """An identity of a query as it is stored; one that cannot be is nobody's."""
        try:
            return self._normal(ChannelName(channel), identity) if channel else identity
        except ValueError:
            return identity


def no_such_contact() -> NotFound:
    return NotFound("There is no such contact in the project.")
