-- A condition on the time may be answered by an index: volatile, `now()` was asked again for every row of a table, and
-- sweeps read all that is not due to find that it is not. Where it stands in a filter it is still asked for each row.
ALTER FUNCTION switchboard.now() STABLE;
