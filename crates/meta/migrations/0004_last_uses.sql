-- When things were used last, in milliseconds since 1970, so that what nobody uses any more can go.
-- 0 = not known: it counts from the next time that somebody looks.
ALTER TABLE images ADD COLUMN used_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE steps ADD COLUMN used_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE objects ADD COLUMN used_at BIGINT NOT NULL DEFAULT 0;
