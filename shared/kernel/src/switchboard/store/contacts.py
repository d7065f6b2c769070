"""Contacts: found, made, read and written. The one place where an identity becomes a contact.

Lock order everywhere: contacts, lanes, conversations, messages, attempts, each by id. Contacts come first because the
route, and so the lanes, depend on them. Routers hold the contacts of their batch against deletion and merges only
(KEY SHARE), so they never wait for each other there. Who makes a contact, or gives one an identity, takes the advisory
lock of that identity after that: two routers that meet a stranger at once make one contact.
"""

import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import asyncpg
import msgspec
from msgspec import Struct

from switchboard.contact import UNKNOWN_NAME, Contact, DuplicatedIdentity
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import ContactId, ProjectId, derive
from switchboard.rules.recipient import choose_contact, duplicated
from switchboard.store.pool import Connection

#: The first of the two numbers of an advisory lock for an identity.
_IDENTITY_LOCK: Final = 0x5157_1703

Holders = Mapping[ChannelIdentity, Sequence[ContactId]]


class Addressed(Struct, frozen=True):
    """One message, event or opt-out whose contact is looked for."""

    #: The id of what it is. A contact made for it derives its own id from it.
    cause: str
    project_id: ProjectId
    identities: tuple[ChannelIdentity, ...] = ()
    #: The contact, where it was named by its id; then the identities do not matter.
    contact_id: ContactId | None = None
    #: Whether to make a contact for a stranger.
    creates: bool = True


class Matched(Struct, frozen=True):
    """Whom an identity, or an id, means."""

    contact_id: ContactId
    #: It was made for this cause: CONTACT_CREATE is due.
    is_new: bool = False
    #: The whole contact, where it was named by its id or is new.
    contact: Contact | None = None


def created_by(cause: str, identities: Sequence[ChannelIdentity]) -> Contact:
    """The contact that `cause` makes of these identities (conversation-api 4.4): the same in every process."""
    return Contact(
        ContactId(derive(cause, "contact")),
        tuple(identities),
        channel_priority=(identities[0].channel,),
        display_name=UNKNOWN_NAME,
    )


async def match(connection: Connection, asked: Sequence[Addressed]) -> dict[str, Matched]:
    """Find the contacts of a batch, and make those of strangers, in the caller's transaction, before lanes are locked.

    By cause; who is not found and not to be made is left out. A contact stays until the transaction ends: nobody
    deletes or merges it meanwhile.
    """
    by_id = await _by_id(connection, {item.contact_id for item in asked if item.contact_id is not None})
    told = [item for item in asked if item.contact_id is None and item.identities]
    holders = await _holders(connection, told)
    strangers = [item for item in told if item.creates and _choose(item, holders) is None]
    if strangers:
        await lock_identities(connection, ((item.project_id, one) for item in strangers for one in item.identities))
        # Another router may have made them before we had the lock.
        holders |= await _holders(connection, strangers)
    found: dict[str, Matched] = {}
    new: dict[str, tuple[ProjectId, Contact]] = {}
    for item in asked:
        if item.contact_id is not None:
            contact = by_id.get((item.project_id, item.contact_id))
            if contact is not None:
                found[item.cause] = Matched(contact.id, contact=contact)
        elif (known := _choose(item, holders)) is not None:
            found[item.cause] = Matched(known)
        elif item.creates and item.identities:
            contact = created_by(item.cause, item.identities)
            new[item.cause] = (item.project_id, contact)
            found[item.cause] = Matched(contact.id, is_new=True, contact=contact)
            for identity in contact.channel_identities:
                holders.setdefault((item.project_id, identity), []).append(contact.id)
    await insert(connection, new.values(), told=1)
    return found


def _choose(
    item: Addressed, holders: Mapping[tuple[ProjectId, ChannelIdentity], Sequence[ContactId]]
) -> ContactId | None:
    held = {identity: holders.get((item.project_id, identity), ()) for identity in item.identities}
    return choose_contact(item.identities, held)


async def _by_id(
    connection: Connection, contact_ids: Collection[ContactId]
) -> dict[tuple[ProjectId, ContactId], Contact]:
    if not contact_ids:
        return {}
    rows = await connection.fetch(
        f"{_SELECT} WHERE c.id = ANY($1::text[]) ORDER BY c.id FOR KEY SHARE", sorted(contact_ids)
    )
    return {(ProjectId(row["project_id"]), ContactId(row["id"])): _contact(row) for row in rows}


async def _holders(
    connection: Connection, asked: Sequence[Addressed]
) -> dict[tuple[ProjectId, ChannelIdentity], list[ContactId]]:
    """Who holds these identities; the holders are held against deletion and merges."""
    wanted = sorted({(item.project_id, i.identity, i.channel, i.app_id) for item in asked for i in item.identities})
    if not wanted:
        return {}
    rows = await connection.fetch(
        "SELECT held.project_id, held.channel, held.identity, held.app_id, c.id"
        " FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS asked (project_id, identity, channel, app_id)"
        " JOIN switchboard.contact_identities AS held USING (project_id, identity, channel, app_id)"
        " JOIN switchboard.contacts AS c ON c.id = held.contact_id ORDER BY c.id FOR KEY SHARE OF c",
        *(list(column) for column in zip(*wanted, strict=True)),
    )
    found: dict[tuple[ProjectId, ChannelIdentity], list[ContactId]] = {}
    for row in rows:
        identity = ChannelIdentity(ChannelName(row["channel"]), row["identity"], row["app_id"])
        found.setdefault((ProjectId(row["project_id"]), identity), []).append(ContactId(row["id"]))
    return found


async def lock_identities(connection: Connection, identities: Iterable[tuple[ProjectId, ChannelIdentity]]) -> None:
    """Keep others from giving these identities to contacts until the transaction ends."""
    # Few locks for many strangers: what shares one only waits a little longer.
    numbers = {zlib.crc32("\x1f".join((project, *_key(identity))).encode()) & 0xFFF for project, identity in identities}
    await connection.execute(
        "SELECT pg_advisory_xact_lock($1, number) FROM (SELECT number FROM unnest($2::integer[]) AS number"
        " ORDER BY number OFFSET 0) AS wanted",
        _IDENTITY_LOCK,
        sorted(numbers),
    )


async def insert(connection: Connection, contacts: Iterable[tuple[ProjectId, Contact]], *, told: int) -> None:
    """Insert new contacts with their identities. `told` is the sequence number of the latest callback about them."""
    rows = list(contacts)
    if not rows:
        return
    await connection.copy_records_to_table(
        "contacts",
        records=[
            (
                c.id, project, list(c.channel_priority), c.display_name, c.email, c.external_id, c.metadata, c.language,
                told,
            )
            for project, c in rows
        ],
        columns=("id", "project_id", "channel_priority", "display_name", "email", "external_id", "metadata", "language",
                 "told"),
        schema_name="switchboard",
    )  # fmt: skip
    await _insert_identities(connection, rows)


async def _insert_identities(connection: Connection, contacts: Iterable[tuple[ProjectId, Contact]]) -> None:
    await connection.copy_records_to_table(
        "contact_identities",
        records=[
            (contact.id, place, project, *_key(identity))
            for project, contact in contacts
            for place, identity in enumerate(contact.channel_identities)
        ],
        columns=("contact_id", "place", "project_id", "channel", "identity", "app_id"),
        schema_name="switchboard",
    )


async def read(connection: Connection, project_id: ProjectId, contact_id: ContactId) -> Contact | None:
    """One contact of a project."""
    row = await connection.fetchrow(f"{_SELECT} WHERE c.id = $1 AND c.project_id = $2", contact_id, project_id)
    return None if row is None else _contact(row)


async def lock(
    connection: Connection, project_id: ProjectId, contact_ids: Collection[ContactId]
) -> dict[ContactId, Contact]:
    """Contacts of a project, to change, merge or delete them."""
    rows = await connection.fetch(
        f"{_SELECT} WHERE c.id = ANY($1::text[]) AND c.project_id = $2 ORDER BY c.id FOR UPDATE",
        sorted(contact_ids),
        project_id,
    )
    return {ContactId(row["id"]): _contact(row) for row in rows}


async def page(
    connection: Connection,
    project_id: ProjectId,
    *,
    external_id: str = "",
    channel: str = "",
    identity: str = "",
    after: str | None = None,
    limit: int,
) -> list[Contact]:
    """Contacts of a project, oldest first, after an id; all, those with an external id, or holders of an identity."""
    condition = "c.project_id = $1 AND ($2::text IS NULL OR c.id > $2)"
    arguments: list[object] = [project_id, after, limit]
    if external_id:
        condition += " AND c.external_id = $4 AND c.external_id <> ''"
        arguments.append(external_id)
    elif channel:
        condition += (
            " AND c.id IN (SELECT contact_id FROM switchboard.contact_identities"
            " WHERE project_id = $1 AND identity = $4 AND channel = $5)"
        )
        arguments += [identity, channel]
    rows = await connection.fetch(f"{_SELECT} WHERE {condition} ORDER BY c.id LIMIT $3", *arguments)
    return [_contact(row) for row in rows]


async def replace(connection: Connection, project_id: ProjectId, contact: Contact) -> None:
    """Write a locked contact anew, identities included."""
    await connection.execute(
        "UPDATE switchboard.contacts SET channel_priority = $2, display_name = $3, email = $4, external_id = $5,"
        " metadata = $6, language = $7 WHERE id = $1",
        contact.id, list(contact.channel_priority), contact.display_name, contact.email, contact.external_id,
        contact.metadata, contact.language,
    )  # fmt: skip
    await connection.execute("DELETE FROM switchboard.contact_identities WHERE contact_id = $1", contact.id)
    await _insert_identities(connection, [(project_id, contact)])


async def delete(connection: Connection, contact_id: ContactId) -> None:
    """Delete a locked contact. Its conversations and messages are the caller's."""
    await connection.execute("DELETE FROM switchboard.contacts WHERE id = $1", contact_id)


async def tell(connection: Connection, contact_id: ContactId, count: int = 1) -> int:
    """Take `count` sequence numbers for callbacks about a contact. Returns the first."""
    last: int = await connection.fetchval(
        "UPDATE switchboard.contacts SET told = told + $2 WHERE id = $1 RETURNING told", contact_id, count
    )
    return last - count + 1


async def duplicates(
    connection: Connection, project_id: ProjectId, identities: Sequence[ChannelIdentity]
) -> tuple[DuplicatedIdentity, ...]:
    """Which of these identities more than one contact of the project holds now."""
    rows = await connection.fetch(
        "SELECT held.channel, held.identity, held.app_id, held.contact_id"
        " FROM unnest($2::text[], $3::text[], $4::text[]) AS asked (channel, identity, app_id)"
        " JOIN switchboard.contact_identities AS held USING (identity, channel, app_id) WHERE held.project_id = $1",
        project_id,
        *(list(column) for column in zip(*map(_key, identities), strict=True)),
    )
    holders: dict[ChannelIdentity, list[ContactId]] = {}
    for row in rows:
        identity = ChannelIdentity(ChannelName(row["channel"]), row["identity"], row["app_id"])
        holders.setdefault(identity, []).append(ContactId(row["contact_id"]))
    return duplicated(identities, holders)


class Conflict(Struct, frozen=True):
    """An identity that more than one contact holds (conversation-api 4.4)."""

    identity: str
    channels: tuple[str, ...]
    contact_ids: tuple[str, ...]


async def conflicts(connection: Connection, project_id: ProjectId, *, after: str | None, limit: int) -> list[Conflict]:
    """Identities of a project that several contacts hold, in their own order, after one."""
    rows = await connection.fetch(
        "SELECT identity, array_agg(DISTINCT channel ORDER BY channel) AS channels,"
        " array_agg(DISTINCT holder ORDER BY holder) AS holders FROM ("
        " SELECT identity, channel, unnest(array_agg(contact_id)) AS holder FROM switchboard.contact_identities"
        " WHERE project_id = $1 AND ($2::text IS NULL OR identity > $2) GROUP BY identity, channel, app_id"
        " HAVING count(DISTINCT contact_id) > 1) AS shared GROUP BY identity ORDER BY identity LIMIT $3",
        project_id, after, limit,
    )  # fmt: skip
    return [Conflict(row["identity"], tuple(row["channels"]), tuple(row["holders"])) for row in rows]


_SELECT: Final = (
    "SELECT c.id, c.project_id, c.channel_priority, c.display_name, c.email, c.external_id, c.metadata, c.language,"
    " (SELECT json_agg(json_build_object('channel', i.channel, 'identity', i.identity, 'app_id', i.app_id)"
    " ORDER BY i.place) FROM switchboard.contact_identities AS i WHERE i.contact_id = c.id)::text AS identities"
    " FROM switchboard.contacts AS c"
)
_identities: Final = msgspec.json.Decoder(tuple[ChannelIdentity, ...])


def _contact(row: asyncpg.Record) -> Contact:
    return Contact(
        id=ContactId(row["id"]),
        channel_identities=_identities.decode(row["identities"] or "[]"),
        channel_priority=tuple(map(ChannelName, row["channel_priority"])),
        display_name=row["display_name"],
        email=row["email"],
        external_id=row["external_id"],
        metadata=row["metadata"],
        language=row["language"],
    )


def _key(identity: ChannelIdentity) -> tuple[str, str, str]:
    return identity.channel, identity.identity, identity.app_id


async def hold(connection: Connection, project_id: ProjectId, contact_id: ContactId) -> bool:
    """Keep a contact from being deleted or merged until the transaction ends. Returns whether there is one."""
    held = await connection.fetchval(
        "SELECT true FROM switchboard.contacts WHERE id = $1 AND project_id = $2 FOR KEY SHARE", contact_id, project_id
    )
    return held is not None
