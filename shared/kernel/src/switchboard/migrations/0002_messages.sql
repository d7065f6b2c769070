-- Messages and what became of them. One authority per message: its row (DESIGN 5).
-- Every table of the day is partitioned by the day inside the ULID, which begins every primary key.

-- A client's Idempotency-Key. Written before the produce; `published` after the ack.
CREATE TABLE switchboard.idempotency (
    project_id   text COLLATE "C" NOT NULL,
    key          text COLLATE "C" NOT NULL,
    body_hash    bytea       NOT NULL,
    message_id   text COLLATE "C" NOT NULL,
    accepted_at  timestamptz NOT NULL,
    published    boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (project_id, key)
);
CREATE INDEX idempotency_by_age ON switchboard.idempotency (accepted_at);

CREATE TABLE switchboard.messages (
    id              text COLLATE "C" NOT NULL,
    project_id      text COLLATE "C" NOT NULL,
    app_id          text COLLATE "C" NOT NULL,
    direction       text        NOT NULL CHECK (direction IN ('TO_CONTACT', 'TO_APP')),
    mode            text        NOT NULL CHECK (mode IN ('DISPATCH', 'CONVERSATION')),
    accepted_at     timestamptz NOT NULL,
    -- The identity messages are listed by: the recipient's (or sender's) as used or first tried.
    channel         text        NOT NULL,
    identity        text COLLATE "C" NOT NULL,
    -- What reports need after the content is gone: identities, metadata, correlation id, callback target. JSON.
    envelope        bytea,
    -- The content (app or contact message). JSON. NULL once purged by the app's retention.
    body            bytea,
    body_until      timestamptz, -- when retention purges the body; NULL: as soon as the message is final
    -- The ordered steps with the reasons of every candidate. JSON. Empty for messages from contacts.
    route           bytea,
    high_priority   boolean     NOT NULL DEFAULT false,

    phase           text        NOT NULL CHECK (phase IN ('SENDING', 'CLAIMED', 'RETRYING', 'SUBMITTED', 'UNKNOWN', 'FINAL')),
    status          text        NOT NULL,
    status_at       timestamptz NOT NULL,
    reason          bytea,      -- the Reason of FAILED. JSON.
    step            smallint    NOT NULL DEFAULT 0,
    submission      integer     NOT NULL DEFAULT 0, -- raised by every dispatch; part of the attempt's id
    tries           integer     NOT NULL DEFAULT 0, -- bounds retries of the step; throttled ones do not count
    first_failed_at timestamptz,                    -- the step's first failure for now
    -- What each step's channel reported, and the callbacks' sequence numbers. JSON (rules.progress.Ledger).
    ledger          bytea,

    expires_at      timestamptz, -- until a channel accepts: TTL, else 72 h
    ttl_ends_at     timestamptz, -- the TTL alone: stops failover, is handed to providers
    step_due_at     timestamptz, -- switch, or end of the wait of an unknown
    retry_at        timestamptz,
    claim_due_at    timestamptz, -- the planned attempt must be claimed, the claimed one finished
    horizon_at      timestamptz, -- no receipt comes any more
    next_due        timestamptz, -- the least of those that apply
    final           boolean     NOT NULL DEFAULT false,
    final_at        timestamptz,

    PRIMARY KEY (id),
    CONSTRAINT no_message_is_forgotten CHECK (final OR next_due IS NOT NULL)
) PARTITION BY RANGE (id);
CREATE INDEX messages_due ON switchboard.messages (next_due) WHERE NOT final;
CREATE INDEX messages_by_app ON switchboard.messages (app_id, id);

CREATE TABLE switchboard.attempts (
    message_id   text COLLATE "C" NOT NULL,
    step         smallint    NOT NULL,
    submission   integer     NOT NULL,
    app_id       text COLLATE "C" NOT NULL,
    account      text COLLATE "C" NOT NULL,
    channel      text        NOT NULL,
    identity     text COLLATE "C" NOT NULL,
    state        text        NOT NULL CHECK (state IN ('planned', 'claimed', 'finished', 'cancelled')),
    -- NULL while it waits in a lane for a slot: no deadline runs.
    send_before  timestamptz,
    republished  boolean     NOT NULL DEFAULT false,
    claimed_at   timestamptz,
    claimed_by   text,
    finished_at  timestamptz,
    outcome      bytea,      -- JSON (channel.outcome.Outcome), recorded by the adapter before it is published
    -- Lanes that count it as in flight, lowered by the transition that ends it.
    lanes        text[]      NOT NULL DEFAULT '{}',
    PRIMARY KEY (message_id, step, submission)
) PARTITION BY RANGE (message_id);

-- Which attempt a provider's id means: where outcomes and receipts meet.
CREATE TABLE switchboard.provider_ids (
    account      text COLLATE "C" NOT NULL,
    provider_id  text COLLATE "C" NOT NULL, -- canonical spelling
    message_id   text COLLATE "C" NOT NULL,
    step         smallint    NOT NULL,
    submission   integer     NOT NULL,
    part         smallint    NOT NULL,
    identity     text COLLATE "C" NOT NULL,
    PRIMARY KEY (account, provider_id, message_id)
) PARTITION BY RANGE (message_id);

-- Receipts that met no outcome yet. Live 72 h, then counted and dropped.
CREATE TABLE switchboard.receipts (
    account       text COLLATE "C" NOT NULL,
    provider_id   text COLLATE "C" NOT NULL, -- canonical spelling
    status        text        NOT NULL,
    aliases       text[]      NOT NULL,
    fact          bytea       NOT NULL,      -- JSON (channel.contract.ReceiptFact)
    received_at   timestamptz NOT NULL,
    PRIMARY KEY (account, provider_id, status)
);
CREATE INDEX receipts_by_alias ON switchboard.receipts USING gin (aliases);
CREATE INDEX receipts_by_age ON switchboard.receipts (received_at);

-- Inbound facts already published, by the provider's id: what a provider repeats is dropped.
CREATE TABLE switchboard.inbound_seen (
    account      text COLLATE "C" NOT NULL,
    provider_id  text COLLATE "C" NOT NULL,
    message_id   text COLLATE "C" NOT NULL,
    seen_at      timestamptz NOT NULL,
    PRIMARY KEY (account, provider_id)
);
CREATE INDEX inbound_seen_by_age ON switchboard.inbound_seen (seen_at);

-- Parts of long messages from people, until all are there.
CREATE TABLE switchboard.inbound_parts (
    account      text COLLATE "C" NOT NULL,
    part_group   text COLLATE "C" NOT NULL,
    number       smallint    NOT NULL,
    total        smallint    NOT NULL,
    content      bytea       NOT NULL,
    received_at  timestamptz NOT NULL,
    PRIMARY KEY (account, part_group, number)
);
CREATE INDEX inbound_parts_by_age ON switchboard.inbound_parts (received_at);

-- Everything that happened to one message, in order. Replay safety, the log people read, and traces come from it.
CREATE TABLE switchboard.timeline (
    message_id  text COLLATE "C" NOT NULL,
    number      bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    at          timestamptz NOT NULL,
    kind        text        NOT NULL,
    -- What caused it, so that a record seen again finds what it led to.
    cause       text COLLATE "C" NOT NULL,
    entry       bytea       NOT NULL, -- JSON (timeline.Entry)
    PRIMARY KEY (message_id, number)
) PARTITION BY RANGE (message_id);

-- Facts of API writes on their way to Kafka, from the same transaction as the write.
CREATE TABLE switchboard.outbox (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic       text        NOT NULL,
    key         bytea       NOT NULL,
    headers     jsonb       NOT NULL,
    value       bytea       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT switchboard.now()
);

-- Makes the partitions of one day of every daily table. `bounds` are the least ULIDs of the day and of the next.
CREATE FUNCTION switchboard.make_day(suffix text, lower_bound text, upper_bound text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
BEGIN
    FOR parent IN SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE n.nspname = 'switchboard' AND c.relkind = 'p' LOOP
        EXECUTE format('CREATE TABLE IF NOT EXISTS switchboard.%I PARTITION OF switchboard.%I FOR VALUES FROM (%L) TO (%L)',
                       parent || '_' || suffix, parent, lower_bound, upper_bound);
    END LOOP;
END $$;
