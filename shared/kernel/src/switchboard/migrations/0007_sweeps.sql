-- What sweeps look for, so that they find it without reading what is not due.

-- Contents to purge: when their retention ends, or the end of the message where nothing is retained.
CREATE INDEX messages_body ON switchboard.messages ((COALESCE(body_until, final_at))) WHERE final AND body IS NOT NULL;
-- Envelopes to purge, once no report can follow.
CREATE INDEX messages_envelope ON switchboard.messages (final_at)
    WHERE final AND body IS NULL AND envelope IS NOT NULL;
