-- When a call was over, in milliseconds since 1970, so that its results can go after their time; 0 while it isn't.
ALTER TABLE calls ADD COLUMN finished_at BIGINT NOT NULL DEFAULT 0;
CREATE INDEX calls_by_end ON calls (state, finished_at);
-- How often an input has failed: what is left of its retries after a restart.
ALTER TABLE inputs ADD COLUMN failures BIGINT NOT NULL DEFAULT 0;
