-- Lanes: durable waiting lines with a gate, for dispatches, provider accounts and endpoints (DESIGN 6).

CREATE TABLE switchboard.lanes (
    id             text COLLATE "C" PRIMARY KEY,
    kind           text        NOT NULL CHECK (kind IN ('dispatch', 'account', 'endpoint')),
    -- Pacing (GCRA): one unit every `interval_ns` nanoseconds, times `slowdown`; no slot before `tat`.
    interval_ns    bigint      NOT NULL CHECK (interval_ns > 0),
    slowdown       double precision NOT NULL DEFAULT 1 CHECK (slowdown >= 1),
    tat            timestamptz NOT NULL,
    -- Rows of lane_items here, leased ones included (an endpoint's: what its owner counts as waiting).
    waiting        bigint      NOT NULL DEFAULT 0 CHECK (waiting >= 0),
    in_flight      integer     NOT NULL DEFAULT 0 CHECK (in_flight >= 0),
    max_in_flight  integer     NOT NULL CHECK (max_in_flight > 0),
    -- The breaker. `probing`: one real message is under way to find out whether a closed gate may open.
    gate           text        NOT NULL DEFAULT 'open' CHECK (gate IN ('open', 'closed', 'paused')),
    fail_streak    integer     NOT NULL DEFAULT 0 CHECK (fail_streak >= 0),
    probe_at       timestamptz,
    probing        boolean     NOT NULL DEFAULT false,
    -- The number of the item that entered last. Given out under the row's lock, so it follows the commits.
    last_sequence  bigint      NOT NULL DEFAULT 0,
    -- Who drains it. The token rises with every change of owner: what an earlier owner still does has no effect.
    owner          text,
    token          bigint      NOT NULL DEFAULT 0,
    lease_until    timestamptz,
    CONSTRAINT a_closed_gate_is_probed CHECK (gate <> 'closed' OR probe_at IS NOT NULL)
) WITH (fillfactor = 50); -- rows change often: new versions stay on their page
CREATE INDEX lanes_with_work ON switchboard.lanes (kind, id) WHERE waiting > 0;

-- A planned attempt without a slot. In line by (priority, sequence); 0 is HIGH, 1 is NORMAL.
CREATE TABLE switchboard.lane_items (
    message_id          text COLLATE "C" NOT NULL,
    step                smallint    NOT NULL,
    submission          integer     NOT NULL,
    lane                text COLLATE "C" NOT NULL,
    account_lane        text COLLATE "C",
    priority            smallint    NOT NULL,
    sequence            bigint      NOT NULL,
    units               integer     NOT NULL CHECK (units > 0), -- in the account's unit; one in the dispatch lane
    other_channel_left  boolean     NOT NULL,
    entered_at          timestamptz NOT NULL,
    -- Its step was told to be abandoned: not leased any more, told again if nothing has come of it.
    abandoned_at        timestamptz,
    -- The lease: the owner's token while the item, which has its slot, is being published.
    token               bigint,
    send_before         timestamptz,
    PRIMARY KEY (message_id, step, submission)
);
CREATE UNIQUE INDEX lane_items_in_line ON switchboard.lane_items (lane, priority, sequence) WHERE token IS NULL;
CREATE INDEX lane_items_leased ON switchboard.lane_items (lane) WHERE token IS NOT NULL;
CREATE INDEX lane_items_movable ON switchboard.lane_items (lane, sequence)
    WHERE token IS NULL AND other_channel_left;

-- Locks lanes in the order of their ids, which is what keeps planners from waiting for each other in a circle.
-- Missing ones are made before the first lock is taken, in the same order.
CREATE FUNCTION switchboard.lock_lanes(
    ids text[], kinds text[], intervals bigint[], maxima integer[], moment timestamptz
) RETURNS SETOF switchboard.lanes LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO switchboard.lanes (id, kind, interval_ns, max_in_flight, tat)
        SELECT asked.id, asked.kind, asked.interval_ns, asked.max_in_flight, moment
        FROM unnest(ids, kinds, intervals, maxima) AS asked (id, kind, interval_ns, max_in_flight)
        WHERE asked.interval_ns IS NOT NULL
          AND NOT EXISTS (SELECT FROM switchboard.lanes AS lane WHERE lane.id = asked.id)
        ORDER BY asked.id COLLATE "C"
        ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT * FROM switchboard.lanes AS lane WHERE lane.id = ANY (ids) ORDER BY lane.id FOR UPDATE;
END $$;
