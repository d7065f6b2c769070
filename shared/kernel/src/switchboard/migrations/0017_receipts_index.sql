-- Receipts come and go within seconds. Every look for one also read all entries that were not sorted in yet, up to
-- 4 MB of them: 45 ms each time while a long lane was drained.
ALTER INDEX switchboard.receipts_by_alias SET (fastupdate = off);
