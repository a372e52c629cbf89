-- Types and statements are the part that SQLite and PostgreSQL share: BIGINT for numbers and times
-- (milliseconds since 1970, UTC), TEXT for names, BYTEA for bytes (SQLite keeps bytes as they are in
-- a column of any declared type).

CREATE TABLE tokens (
    id          TEXT PRIMARY KEY NOT NULL,
    name        TEXT NOT NULL,
    salt        BYTEA NOT NULL,
    hash        BYTEA NOT NULL,
    created_at  BIGINT NOT NULL
);

CREATE TABLE apps (
    id           TEXT PRIMARY KEY NOT NULL,
    name         TEXT NOT NULL,
    environment  TEXT NOT NULL,
    state        TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    record       BYTEA NOT NULL
);
CREATE INDEX apps_by_name ON apps (environment, name);
CREATE INDEX apps_by_state ON apps (state);

-- Functions, classes, mounts: whatever an app is made of. `kind` keeps them apart.
CREATE TABLE objects (
    id      TEXT PRIMARY KEY NOT NULL,
    kind    TEXT NOT NULL,
    app_id  TEXT NOT NULL,
    name    TEXT NOT NULL,
    record  BYTEA NOT NULL
);
CREATE INDEX objects_by_app ON objects (app_id, kind, name);
CREATE INDEX objects_by_name ON objects (kind, name);

CREATE TABLE images (
    id         TEXT PRIMARY KEY NOT NULL,
    cache_key  TEXT NOT NULL UNIQUE,
    state      TEXT NOT NULL,
    record     BYTEA NOT NULL
);
CREATE INDEX images_by_state ON images (state);

CREATE TABLE steps (
    cache_key  TEXT PRIMARY KEY NOT NULL,
    snapshot   TEXT NOT NULL,
    config     BYTEA NOT NULL
);

CREATE TABLE files (
    sha256  TEXT PRIMARY KEY NOT NULL,
    digest  TEXT NOT NULL,
    size    BIGINT NOT NULL
);

CREATE TABLE calls (
    id           TEXT PRIMARY KEY NOT NULL,
    function_id  TEXT NOT NULL,
    state        TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    record       BYTEA NOT NULL
);
CREATE INDEX calls_by_function ON calls (function_id);
CREATE INDEX calls_by_state ON calls (state, created_at);

CREATE TABLE inputs (
    id       TEXT PRIMARY KEY NOT NULL,
    call_id  TEXT NOT NULL REFERENCES calls (id) ON DELETE CASCADE,
    idx      BIGINT NOT NULL,
    record   BYTEA NOT NULL
);
CREATE INDEX inputs_by_call ON inputs (call_id, idx);

CREATE TABLE outputs (
    call_id  TEXT NOT NULL REFERENCES calls (id) ON DELETE CASCADE,
    entry    BIGINT NOT NULL,
    record   BYTEA NOT NULL,
    PRIMARY KEY (call_id, entry)
);

CREATE TABLE idempotency (
    request_key  TEXT PRIMARY KEY NOT NULL,
    response     BYTEA NOT NULL,
    created_at   BIGINT NOT NULL
);
CREATE INDEX idempotency_by_age ON idempotency (created_at);

CREATE TABLE models (
    repository  TEXT NOT NULL,
    revision    TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    record      BYTEA NOT NULL,
    PRIMARY KEY (repository, revision)
);

CREATE TABLE model_refs (
    repository  TEXT NOT NULL,
    name        TEXT NOT NULL,
    revision    TEXT NOT NULL,
    PRIMARY KEY (repository, name),
    FOREIGN KEY (repository, revision) REFERENCES models (repository, revision) ON DELETE CASCADE
);

-- What clients asked for that this server does not have.
CREATE TABLE unknown_methods (
    client_version  TEXT NOT NULL,
    method          TEXT NOT NULL,
    first_seen_at   BIGINT NOT NULL,
    PRIMARY KEY (client_version, method)
);
