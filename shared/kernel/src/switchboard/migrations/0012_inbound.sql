-- Events, consent, capability, and choices that are answered by text.

-- Events to and from people (conversation-api 4.6). Content-free rows live as long as those of messages.
CREATE TABLE switchboard.events (
    id               text COLLATE "C" NOT NULL,
    project_id       text COLLATE "C" NOT NULL,
    app_id           text COLLATE "C" NOT NULL,
    direction        text        NOT NULL CHECK (direction IN ('TO_CONTACT', 'TO_APP')),
    mode             text        NOT NULL CHECK (mode IN ('DISPATCH', 'CONVERSATION')),
    accepted_at      timestamptz NOT NULL,
    channel          text        NOT NULL,
    identity         text COLLATE "C" NOT NULL,
    contact_id       text COLLATE "C" NOT NULL DEFAULT '',
    conversation_id  text COLLATE "C" NOT NULL DEFAULT '',
    -- What its delivery report needs: metadata, callback target. JSON (store.events.Envelope).
    envelope         bytea       NOT NULL DEFAULT '',
    -- Which kind of event the body is: app_event, contact_event or contact_message_event.
    kind             text        NOT NULL,
    body             bytea,      -- JSON. NULL once purged by the app's retention.
    body_until       timestamptz, -- NULL: as soon as the event is final
    state            text        NOT NULL CHECK (state IN ('planned', 'claimed', 'final')),
    status           text        NOT NULL,
    reason           bytea,      -- the Reason of FAILED. JSON.
    due_at           timestamptz, -- no outcome by then: it failed
    final_at         timestamptz,
    PRIMARY KEY (id),
    CONSTRAINT no_event_is_forgotten CHECK (state = 'final' OR due_at IS NOT NULL)
) PARTITION BY RANGE (id);
CREATE INDEX events_due ON switchboard.events (due_at) WHERE state <> 'final';
CREATE INDEX events_by_app ON switchboard.events (app_id, id);
CREATE INDEX events_by_conversation ON switchboard.events (conversation_id, id) WHERE conversation_id <> '';
CREATE INDEX events_by_contact ON switchboard.events (contact_id, id) WHERE contact_id <> '';
CREATE INDEX events_body ON switchboard.events ((COALESCE(body_until, final_at))) WHERE state = 'final' AND body IS NOT NULL;

-- Who left which list of an app (conversation-api 14).
CREATE TABLE switchboard.consents (
    app_id     text COLLATE "C" NOT NULL,
    identity   text COLLATE "C" NOT NULL,
    list_type  text        NOT NULL CHECK (list_type IN ('OPT_OUT_ALL', 'OPT_OUT_MARKETING', 'OPT_OUT_NOTIFICATION')),
    since      timestamptz NOT NULL,
    PRIMARY KEY (app_id, list_type, identity)
);
CREATE INDEX consents_by_identity ON switchboard.consents (app_id, identity);

-- Every change of consent, and what caused it: the same cause changes nothing twice.
CREATE TABLE switchboard.consent_audit (
    app_id      text COLLATE "C" NOT NULL,
    identity    text COLLATE "C" NOT NULL,
    cause       text COLLATE "C" NOT NULL,
    list_type   text        NOT NULL,
    project_id  text COLLATE "C" NOT NULL,
    origin      text        NOT NULL CHECK (origin IN ('ORIGIN_MO', 'ORIGIN_API')),
    operation   text        NOT NULL CHECK (operation IN ('OPERATION_INSERT', 'OPERATION_UPDATE', 'OPERATION_DELETE')),
    at          timestamptz NOT NULL,
    PRIMARY KEY (app_id, identity, cause)
);

-- The last choices sent to somebody on a channel without buttons, captions hashed. Gone after a day.
CREATE TABLE switchboard.open_choices (
    app_id      text COLLATE "C" NOT NULL,
    channel     text        NOT NULL,
    identity    text COLLATE "C" NOT NULL,
    message_id  text COLLATE "C" NOT NULL,
    answers     bytea       NOT NULL, -- JSON (rules.choices.Answer)
    kept_until  timestamptz NOT NULL,
    PRIMARY KEY (app_id, channel, identity)
);
CREATE INDEX open_choices_by_age ON switchboard.open_choices (kept_until);

-- What channels said about people, as long as it is believed.
CREATE TABLE switchboard.capabilities (
    app_id       text COLLATE "C" NOT NULL,
    channel      text        NOT NULL,
    identity     text COLLATE "C" NOT NULL,
    status       text        NOT NULL,
    answered_at  timestamptz NOT NULL,
    kept_until   timestamptz NOT NULL,
    PRIMARY KEY (app_id, channel, identity)
);
CREATE INDEX capabilities_by_age ON switchboard.capabilities (kept_until);
