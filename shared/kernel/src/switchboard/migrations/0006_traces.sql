-- Messages whose trace is to be exported (anew): sampled ones, and remarkable ones that sampling left out.
CREATE TABLE switchboard.trace_exports (
    message_id  text COLLATE "C" PRIMARY KEY,
    due_at      timestamptz NOT NULL
);
CREATE INDEX trace_exports_due ON switchboard.trace_exports (due_at);
