-- Secrets. The values are sealed: the key is a file beside the database, never in it.
CREATE TABLE secrets (
    id           TEXT PRIMARY KEY NOT NULL,
    environment  TEXT NOT NULL,
    name         TEXT NOT NULL,
    app_id       TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    used_at      BIGINT NOT NULL,
    record       BYTEA NOT NULL
);
CREATE INDEX secrets_by_app ON secrets (app_id);

-- Environments: in which names of apps, Volumes and secrets live. `main` is there without a row.
CREATE TABLE environments (
    name        TEXT PRIMARY KEY NOT NULL,
    created_at  BIGINT NOT NULL
);
-- They were not recorded before: what has a name in one shows that it is meant.
INSERT INTO environments (name, created_at)
    SELECT environment, MIN(created_at) FROM (
        SELECT environment, created_at FROM apps UNION ALL SELECT environment, created_at FROM volumes
    ) AS named WHERE environment <> 'main' GROUP BY environment;

-- What was deployed when, so that an earlier version can come back.
CREATE TABLE deployments (
    app_id       TEXT NOT NULL,
    version      BIGINT NOT NULL,
    deployed_at  BIGINT NOT NULL,
    record       BYTEA NOT NULL,
    PRIMARY KEY (app_id, version)
);
