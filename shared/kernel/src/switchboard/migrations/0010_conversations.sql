-- Contacts and conversations, kept for apps in CONVERSATION mode (conversation-api 4.4, 4.5, 12).
-- Lock order: contacts, lanes, conversations, messages, attempts, each by id (store.contacts).

-- A person as a project knows them. Stays until it is deleted by request.
CREATE TABLE switchboard.contacts (
    id                text COLLATE "C" PRIMARY KEY,
    project_id        text COLLATE "C" NOT NULL,
    channel_priority  text[]      NOT NULL DEFAULT '{}',
    display_name      text        NOT NULL DEFAULT '',
    email             text        NOT NULL DEFAULT '',
    external_id       text COLLATE "C" NOT NULL DEFAULT '',
    metadata          text        NOT NULL DEFAULT '',
    language          text        NOT NULL DEFAULT 'UNSPECIFIED',
    told              bigint      NOT NULL DEFAULT 0 -- the sequence number of its latest callback
);
CREATE INDEX contacts_by_project ON switchboard.contacts (project_id, id);
CREATE INDEX contacts_by_external_id ON switchboard.contacts (project_id, external_id, id) WHERE external_id <> '';

-- Not unique: clients may give one identity to two contacts. That is told and repaired by a merge, not forbidden.
CREATE TABLE switchboard.contact_identities (
    contact_id  text COLLATE "C" NOT NULL REFERENCES switchboard.contacts ON DELETE CASCADE,
    place       smallint    NOT NULL,
    project_id  text COLLATE "C" NOT NULL,
    channel     text COLLATE "C" NOT NULL,
    identity    text COLLATE "C" NOT NULL,
    app_id      text COLLATE "C" NOT NULL DEFAULT '', -- of identities that belong to one app
    PRIMARY KEY (contact_id, place)
);
CREATE INDEX contact_identities_by_identity
    ON switchboard.contact_identities (project_id, identity, channel, app_id, contact_id);

CREATE TABLE switchboard.conversations (
    id              text COLLATE "C" PRIMARY KEY,
    project_id      text COLLATE "C" NOT NULL,
    app_id          text COLLATE "C" NOT NULL,
    contact_id      text COLLATE "C" NOT NULL,
    active          boolean     NOT NULL DEFAULT true,
    active_channel  text        NOT NULL DEFAULT 'CHANNEL_UNSPECIFIED',
    exchanged_at    timestamptz,          -- when `active_channel` became so
    last_received   timestamptz,          -- of its latest message
    metadata        text        NOT NULL DEFAULT '',
    metadata_json   bytea,                -- the conversation metadata: a JSON object
    correlation_id  text        NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT switchboard.now(),
    told            bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX conversations_active ON switchboard.conversations (app_id, contact_id) WHERE active;
CREATE INDEX conversations_by_contact ON switchboard.conversations (contact_id, id);
CREATE INDEX conversations_by_app ON switchboard.conversations (app_id, id);
CREATE INDEX conversations_by_age ON switchboard.conversations (app_id, COALESCE(last_received, created_at), id);

-- What a reply brings back in dispatch mode: the latest correlation id and conversation metadata of an identity.
CREATE TABLE switchboard.reply_contexts (
    app_id          text COLLATE "C" NOT NULL,
    channel         text COLLATE "C" NOT NULL,
    identity        text COLLATE "C" NOT NULL,
    correlation_id  text        NOT NULL DEFAULT '',
    metadata_json   bytea,
    kept_until      timestamptz NOT NULL, -- the app's retention after the send that brought it
    PRIMARY KEY (app_id, channel, identity)
);
CREATE INDEX reply_contexts_by_age ON switchboard.reply_contexts (kept_until);

-- NULL in dispatch mode.
ALTER TABLE switchboard.messages ADD COLUMN contact_id text COLLATE "C", ADD COLUMN conversation_id text COLLATE "C";
-- In the order clients read them. Messages in dispatch mode are in none of these.
CREATE INDEX messages_by_contact ON switchboard.messages (contact_id, accepted_at, id) WHERE contact_id IS NOT NULL;
CREATE INDEX messages_by_conversation ON switchboard.messages (conversation_id, accepted_at, id)
    WHERE conversation_id IS NOT NULL;
CREATE INDEX messages_by_time ON switchboard.messages (app_id, accepted_at, id) WHERE mode = 'CONVERSATION';
