-- Callbacks: every event for every endpoint, and the streams in which unfinished ones wait (DESIGN 6, 7).

-- One callback for one endpoint. Partitioned by the day inside its id, which is that of the message it is about.
CREATE TABLE switchboard.callback_events (
    id              text COLLATE "C" NOT NULL,
    project_id      text COLLATE "C" NOT NULL,
    app_id          text COLLATE "C" NOT NULL,
    endpoint        text COLLATE "C" NOT NULL, -- the lane's id
    webhook_id      text COLLATE "C" NOT NULL, -- '' where `target` overrides all webhooks
    target          text        NOT NULL,
    trigger         text        NOT NULL,
    stream          text COLLATE "C" NOT NULL,
    sequence        bigint      NOT NULL,
    event_at        timestamptz NOT NULL,
    recorded_at     timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,      -- 24 h from the first try or from parking
    state           text        NOT NULL CHECK (state IN ('waiting', 'delivered', 'expired', 'ended', 'dismissed')),
    -- Its followers go before it: refused for 15 min while its endpoint took others.
    passed          boolean     NOT NULL DEFAULT false,
    attempts        integer     NOT NULL DEFAULT 0,
    first_failed_at timestamptz,
    last_tried_at   timestamptz,
    last_status     smallint,                  -- 0: no answer
    last_error      text,
    last_answer     bytea,                     -- the first bytes of the answer
    finished_at     timestamptz,
    -- Kept while it waits; afterwards as long as the app keeps messages, for replay.
    body            bytea,
    body_until      timestamptz,
    PRIMARY KEY (id),
    CONSTRAINT what_waits_has_its_body CHECK (state <> 'waiting' OR body IS NOT NULL),
    CONSTRAINT what_expires_was_tried CHECK (state <> 'expired' OR attempts > 0),
    CONSTRAINT finished_or_waiting CHECK ((state = 'waiting') = (finished_at IS NULL))
) PARTITION BY RANGE (id);
CREATE INDEX callback_events_waiting ON switchboard.callback_events (endpoint, stream, sequence)
    WHERE state = 'waiting';
CREATE INDEX callback_events_lost ON switchboard.callback_events (app_id, id)
    WHERE state IN ('expired', 'ended', 'dismissed');
CREATE INDEX callback_events_body ON switchboard.callback_events (body_until)
    WHERE body IS NOT NULL AND state <> 'waiting';
-- An event is taken however old the message is that it is about.
CREATE TABLE switchboard.callback_events_other PARTITION OF switchboard.callback_events DEFAULT;

-- A stream with unfinished events: its schedule, which tries its head. An event that was passed is a stream of its own.
CREATE TABLE switchboard.callback_streams (
    endpoint        text COLLATE "C" NOT NULL,
    stream          text COLLATE "C" NOT NULL,
    apart           text COLLATE "C" NOT NULL DEFAULT '', -- the passed event's id, else ''
    head            text COLLATE "C" NOT NULL,
    head_sequence   bigint      NOT NULL,
    expires_at      timestamptz NOT NULL,                 -- the head's
    waiting         bigint      NOT NULL CHECK (waiting > 0),
    failing_since   timestamptz,                          -- the head's first failure
    due_at          timestamptz NOT NULL,
    -- When `due_at` was set. What was set before its endpoint recovered is due at once.
    scheduled_at    timestamptz NOT NULL,
    -- Who is trying the head. Every lease has a token of its own: what an earlier owner still does has no effect.
    owner           text,
    token           bigint      NOT NULL DEFAULT 0,       -- 0: never leased since its head became the head
    lease_until     timestamptz,
    PRIMARY KEY (endpoint, stream, apart)
) WITH (fillfactor = 70);
CREATE INDEX callback_streams_due ON switchboard.callback_streams (endpoint, due_at);
CREATE INDEX callback_streams_expiring ON switchboard.callback_streams (endpoint, expires_at);
CREATE INDEX callback_streams_stuck ON switchboard.callback_streams (endpoint, failing_since)
    WHERE apart = '' AND waiting > 1 AND failing_since IS NOT NULL;

CREATE SEQUENCE switchboard.callback_tokens;

-- What an endpoint's owner sees of its health. Its gate and pace are its lane's.
CREATE TABLE switchboard.callback_endpoints (
    endpoint       text COLLATE "C" PRIMARY KEY,
    app_id         text COLLATE "C" NOT NULL,
    webhook_id     text COLLATE "C" NOT NULL,
    -- When it last took a callback, to about ten seconds while nothing waits.
    taken_at       timestamptz,
    failing_since  timestamptz,
    -- Its gate opened: all that was scheduled before is due.
    recovered_at   timestamptz,
    last_status    smallint,
    last_error     text,
    last_answer    bytea,
    last_failed_at timestamptz
);

-- How long a process may be silent before its leases are another's, on the clock that tests may speed up.
CREATE FUNCTION switchboard.lease_end(seconds double precision) RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT switchboard.now() + make_interval(secs => seconds * scale) FROM switchboard.clock
$$;
