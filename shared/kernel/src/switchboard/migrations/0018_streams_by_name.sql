-- A stream is found by its own name, which hardly another one has. By its endpoint, as the planner did it where most
-- endpoints have one stream, each of a batch is looked for among all that wait at the endpoint: the square of them.
ALTER TABLE switchboard.callback_streams DROP CONSTRAINT callback_streams_pkey;
ALTER TABLE switchboard.callback_streams ADD PRIMARY KEY (stream, endpoint, apart);
