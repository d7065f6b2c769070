-- Time and configuration: who may call, what apps have, where callbacks go, what operators provide.

CREATE SCHEMA IF NOT EXISTS switchboard;

-- The one clock of SQL (DESIGN 5). Offset 0 and scale 1 in production; tests move this row.
CREATE TABLE switchboard.clock (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    anchor  timestamptz      NOT NULL DEFAULT '2000-01-01T00:00:00Z',
    shift   interval         NOT NULL DEFAULT '0',
    scale   double precision NOT NULL DEFAULT 1 CHECK (scale > 0)
);
INSERT INTO switchboard.clock DEFAULT VALUES;

CREATE FUNCTION switchboard.now() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN scale = 1 THEN clock_timestamp() + shift
                ELSE anchor + (clock_timestamp() - anchor) * scale + shift END
    FROM switchboard.clock
$$;

CREATE TABLE switchboard.projects (
    id            text COLLATE "C" PRIMARY KEY,
    display_name  text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT switchboard.now()
);

CREATE TABLE switchboard.access_keys (
    id           text COLLATE "C" PRIMARY KEY,
    project_id   text COLLATE "C" NOT NULL REFERENCES switchboard.projects,
    secret_hash  bytea       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT switchboard.now(),
    revoked_at   timestamptz
);

-- `settings` is the API object without ids and credentials; `credentials` is the credential list, encrypted as one.
CREATE TABLE switchboard.apps (
    id           text COLLATE "C" PRIMARY KEY,
    project_id   text COLLATE "C" NOT NULL REFERENCES switchboard.projects,
    settings     jsonb       NOT NULL,
    credentials  bytea       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT switchboard.now(),
    updated_at   timestamptz NOT NULL DEFAULT switchboard.now(),
    deleted_at   timestamptz
);
CREATE INDEX apps_by_project ON switchboard.apps (project_id) WHERE deleted_at IS NULL;

CREATE TABLE switchboard.webhooks (
    id           text COLLATE "C" PRIMARY KEY,
    app_id       text COLLATE "C" NOT NULL REFERENCES switchboard.apps,
    project_id   text COLLATE "C" NOT NULL REFERENCES switchboard.projects,
    target       text        NOT NULL,
    target_type  text        NOT NULL,
    triggers     text[]      NOT NULL,
    -- Signing secrets, newest first, and OAuth2 client credentials: encrypted JSON.
    secrets      bytea       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT switchboard.now(),
    updated_at   timestamptz NOT NULL DEFAULT switchboard.now(),
    deleted_at   timestamptz
);
CREATE UNIQUE INDEX webhooks_target ON switchboard.webhooks (app_id, target) WHERE deleted_at IS NULL;

-- What an operator provides for a channel with provider accounts; an app's `claimed_identity` is its `name`.
CREATE TABLE switchboard.provider_accounts (
    key         text COLLATE "C" PRIMARY KEY,
    channel     text        NOT NULL,
    name        text        NOT NULL,
    settings    bytea       NOT NULL, -- the channel's account settings, encrypted JSON
    created_at  timestamptz NOT NULL DEFAULT switchboard.now(),
    updated_at  timestamptz NOT NULL DEFAULT switchboard.now(),
    UNIQUE (channel, name)
);

-- A number or other sender of a provider account. What people write to it belongs to one app.
CREATE TABLE switchboard.provider_numbers (
    account  text COLLATE "C" NOT NULL REFERENCES switchboard.provider_accounts,
    number   text COLLATE "C" NOT NULL,
    app_id   text COLLATE "C" NOT NULL REFERENCES switchboard.apps,
    PRIMARY KEY (account, number)
);

-- Rights to hold one bind of an account, over all instances.
CREATE TABLE switchboard.binds (
    account      text COLLATE "C" NOT NULL,
    slot         smallint    NOT NULL,
    owner        text,
    token        bigint      NOT NULL DEFAULT 0,
    lease_until  timestamptz,
    PRIMARY KEY (account, slot)
);

-- Configuration is cached by every service; a change is told by NOTIFY (DESIGN 5): `apps:<id>`, `webhooks:<app id>` …
CREATE FUNCTION switchboard.tell_configuration_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed text;
BEGIN
    EXECUTE format('SELECT ($1).%I::text', TG_ARGV[0]) INTO changed USING COALESCE(NEW, OLD);
    PERFORM pg_notify('switchboard_configuration', TG_TABLE_NAME || ':' || changed);
    RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON switchboard.apps
    FOR EACH ROW EXECUTE FUNCTION switchboard.tell_configuration_change('id');
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON switchboard.webhooks
    FOR EACH ROW EXECUTE FUNCTION switchboard.tell_configuration_change('app_id');
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON switchboard.provider_accounts
    FOR EACH ROW EXECUTE FUNCTION switchboard.tell_configuration_change('key');
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON switchboard.provider_numbers
    FOR EACH ROW EXECUTE FUNCTION switchboard.tell_configuration_change('account');
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON switchboard.access_keys
    FOR EACH ROW EXECUTE FUNCTION switchboard.tell_configuration_change('id');
