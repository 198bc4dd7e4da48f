//! The tables. What is large stands in tables of its own, so that sums over all calls read little.

/// `ZJrn`: tells our file from every other SQLite file.
pub const APPLICATION: i64 = 0x5a4a_726e;

/// Raised when an older version could not use what a newer one writes.
pub const VERSION: i64 = 1;

/// `billed` of a call: 0 no, 1 yes and `cost` is known, NULL unknown: then at most `worst_cost` and `worst_tokens`.
pub const SCHEMA: &str = "
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    holder TEXT NOT NULL,
    started INTEGER NOT NULL,
    ended INTEGER
) STRICT;

-- What is asked: `body` is the canonical JSON whose SHA-256 is the key.
CREATE TABLE request (
    key TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;

CREATE TABLE batch (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    model TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    input_file TEXT,
    provider_id TEXT,
    state TEXT NOT NULL CHECK (state IN ('open', 'closed')),
    note TEXT,
    created INTEGER NOT NULL,
    ended INTEGER
) STRICT;

CREATE TABLE call (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL REFERENCES request (key),
    attempt INTEGER NOT NULL,
    run INTEGER NOT NULL REFERENCES run (id),
    batch INTEGER REFERENCES batch (id),
    state TEXT NOT NULL CHECK (state IN ('intent', 'done', 'failed', 'invalid')),
    model TEXT NOT NULL,
    purpose TEXT NOT NULL,
    billed INTEGER,
    worst_cost REAL,
    worst_tokens INTEGER NOT NULL,
    cost REAL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    status INTEGER,
    provider_id TEXT,
    bytes INTEGER,
    note TEXT,
    started INTEGER NOT NULL,
    ended INTEGER,
    UNIQUE (key, attempt)
) STRICT;

CREATE INDEX call_intent ON call (batch) WHERE state = 'intent';
CREATE INDEX call_invalid ON call (key) WHERE state = 'invalid';

CREATE TABLE response (
    call INTEGER PRIMARY KEY REFERENCES call (id),
    body TEXT NOT NULL
) STRICT;

-- The spend ledger. A view, so that it cannot say anything else than the calls.
CREATE VIEW spend AS
SELECT
    id AS call, purpose, model, started AS at, state,
    CASE WHEN billed = 1 THEN cost ELSE 0 END AS cost,
    CASE WHEN billed IS NULL THEN worst_cost ELSE 0 END AS possible_cost,
    CASE WHEN billed = 1 THEN prompt_tokens ELSE 0 END AS prompt_tokens,
    CASE WHEN billed = 1 THEN completion_tokens ELSE 0 END AS completion_tokens,
    CASE WHEN billed IS NULL THEN worst_tokens ELSE 0 END AS possible_tokens,
    billed
FROM call WHERE billed IS NOT 0;
";
