-- Ends a statement one part of which did not find the rows it had to: nothing of it is written (`store/writes.py`).
CREATE FUNCTION switchboard.require(part text, rows bigint, wanted bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF rows <> wanted THEN
        RAISE EXCEPTION USING ERRCODE = 'SB001', MESSAGE = part;
    END IF;
    RETURN true;
END $$;
