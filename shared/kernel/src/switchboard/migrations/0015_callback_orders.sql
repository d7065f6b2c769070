-- What owners see of their callbacks and ask for: health counted by the hour, suspension, orders to send again.

-- Answers that end a callback's retries.
ALTER TABLE switchboard.webhooks ADD COLUMN ends_retries_on smallint[] NOT NULL DEFAULT '{}';

ALTER TABLE switchboard.callback_events
    -- Tries of earlier rounds: an owner who has a finished callback delivered again begins a new one.
    ADD COLUMN earlier_attempts integer NOT NULL DEFAULT 0;

ALTER TABLE switchboard.callback_endpoints
    -- Down for long: probed by the hour only, and its owner was told.
    ADD COLUMN suspended_at timestamptz;
CREATE INDEX callback_endpoints_failing ON switchboard.callback_endpoints (failing_since)
    WHERE failing_since IS NOT NULL AND suspended_at IS NULL;

-- Tries of an endpoint by the hour. Written every few seconds: what a killed process had counted since is not in it.
CREATE TABLE switchboard.callback_tallies (
    endpoint text COLLATE "C" NOT NULL,
    hour     timestamptz NOT NULL,
    taken    bigint      NOT NULL,
    failed   bigint      NOT NULL,
    PRIMARY KEY (endpoint, hour)
);
CREATE INDEX callback_tallies_hour ON switchboard.callback_tallies (hour);

-- What an owner asks for. callback-delivery carries it out, piece by piece, and says here how far it is.
CREATE TABLE switchboard.callback_orders (
    id           text COLLATE "C" PRIMARY KEY,
    project_id   text COLLATE "C" NOT NULL,
    app_id       text COLLATE "C" NOT NULL,
    kind         text        NOT NULL CHECK (kind IN ('resume', 'replay', 'dismiss', 'test')),
    webhook_id   text COLLATE "C" NOT NULL,    -- '': of all
    callback_ids text[]      NOT NULL,         -- empty: those of the window
    states       text[]      NOT NULL,         -- in which a callback is chosen
    from_at      timestamptz,                  -- when it happened
    until_at     timestamptz,
    target       text        NOT NULL,         -- '': where its webhook is
    per_second   double precision NOT NULL CHECK (per_second > 0),
    requested_at timestamptz NOT NULL,
    state        text        NOT NULL CHECK (state IN ('waiting', 'running', 'finished', 'cancelled')),
    -- How far it is.
    after_id     text COLLATE "C" NOT NULL DEFAULT '',
    done         bigint      NOT NULL DEFAULT 0,
    failed       bigint      NOT NULL DEFAULT 0,
    gone         bigint      NOT NULL DEFAULT 0,   -- their bodies are not kept any more
    last_status  smallint,
    last_error   text,
    last_answer  bytea,
    due_at       timestamptz NOT NULL,
    owner        text,
    token        bigint      NOT NULL DEFAULT 0,
    lease_until  timestamptz,
    finished_at  timestamptz,
    CHECK ((state IN ('finished', 'cancelled')) = (finished_at IS NOT NULL))
);
CREATE INDEX callback_orders_due ON switchboard.callback_orders (due_at) WHERE finished_at IS NULL;
CREATE INDEX callback_orders_app ON switchboard.callback_orders (app_id, id);
CREATE INDEX callback_endpoints_app ON switchboard.callback_endpoints (app_id, endpoint);
