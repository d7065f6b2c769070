-- The receipts that have any of these names. Their index knows nothing but bitmaps, which connections have switched off
-- (decision 26), and nothing but the default collation, where ids have another: without both being said, all receipts
-- of an account are read to find one.
CREATE FUNCTION switchboard.receipts_called(names text[]) RETURNS SETOF switchboard.receipts LANGUAGE sql STABLE
SET enable_bitmapscan = on AS $$
    SELECT * FROM switchboard.receipts WHERE aliases && names COLLATE "default"
$$;
