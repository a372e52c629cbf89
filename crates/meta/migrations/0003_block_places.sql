-- A block is a part of an object, from this byte on. Whole files are here as well, under the name of the list of
-- their blocks. A row is only a hint: the object may be gone.
ALTER TABLE blocks ADD COLUMN start BIGINT NOT NULL DEFAULT 0;
