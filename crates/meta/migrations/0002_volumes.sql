-- Volumes by name, and their versions. A version's row is its commit: who inserts number n + 1 has made it.

CREATE TABLE volumes (
    id           TEXT PRIMARY KEY NOT NULL,
    name         TEXT NOT NULL,
    environment  TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    record       BYTEA NOT NULL
);
CREATE INDEX volumes_by_name ON volumes (environment, name);

CREATE TABLE volume_versions (
    volume_id   TEXT NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    number      BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    record      BYTEA NOT NULL,
    PRIMARY KEY (volume_id, number)
);

-- The deltas of containers that are in the history, so that one that is reported again is found.
CREATE TABLE volume_takes (
    task_id    TEXT NOT NULL,
    volume_id  TEXT NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    sequence   BIGINT NOT NULL,
    number     BIGINT NOT NULL,
    PRIMARY KEY (task_id, volume_id, sequence)
);

-- Blocks of uploads, by the SHA-256 that clients name them with.
CREATE TABLE blocks (
    sha256   TEXT PRIMARY KEY NOT NULL,
    digest   TEXT NOT NULL,
    size     BIGINT NOT NULL,
    used_at  BIGINT NOT NULL
);
CREATE INDEX blocks_by_use ON blocks (used_at);
