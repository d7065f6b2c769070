-- What the channel-adapter service remembers beside attempts, receipts and binds.

-- Postbacks too long for a channel's buttons. The button carries `key`, which begins with the message's id.
CREATE TABLE switchboard.postbacks (
    account   text COLLATE "C" NOT NULL,
    key       text COLLATE "C" NOT NULL,
    postback  text        NOT NULL,
    kept_at   timestamptz NOT NULL,
    PRIMARY KEY (account, key)
);
CREATE INDEX postbacks_by_age ON switchboard.postbacks (kept_at);

-- Facts from providers that nothing consumes: opt-outs and opt-ins told by channels, and what has no mapping. Kept raw.
CREATE TABLE switchboard.kept_facts (
    account      text COLLATE "C" NOT NULL,
    provider_id  text COLLATE "C" NOT NULL,
    kind         text        NOT NULL,
    fact         bytea       NOT NULL, -- JSON (channel.contract.Fact)
    received_at  timestamptz NOT NULL,
    PRIMARY KEY (account, provider_id, kind)
);
CREATE INDEX kept_facts_by_age ON switchboard.kept_facts (received_at);

-- Instances that serve a connection channel, so that each takes its share of an account's binds.
CREATE TABLE switchboard.bind_holders (
    channel     text COLLATE "C" NOT NULL,
    owner       text COLLATE "C" NOT NULL,
    seen_until  timestamptz NOT NULL,
    PRIMARY KEY (channel, owner)
);
