-- Copyright (c) 2026 The lowtide.ops team
-- GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- The database of the feature service. Run as its owner, in one transaction, on an empty database.

CREATE TABLE feature_states (
    state    smallint PRIMARY KEY,
    name     text NOT NULL UNIQUE,
    terminal boolean NOT NULL
);
INSERT INTO feature_states VALUES
    (1, 'pending', false), (2, 'analyzing', false), (3, 'planning', false), (4, 'executing', false),
    (5, 'verifying', false), (6, 'completed', true), (7, 'failed', true), (8, 'cancelled', true);

-- events_applied counts what execution_events holds of the feature; last_sequence is the newest of them.
CREATE TABLE feature_executions (
    id             uuid PRIMARY KEY,
    state          smallint NOT NULL REFERENCES feature_states,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    completed_at   timestamptz,
    error          text,
    events_applied bigint NOT NULL DEFAULT 0,
    last_sequence  bigint NOT NULL DEFAULT 0,
    CHECK ((completed_at IS NOT NULL) = (state >= 6))
);
CREATE INDEX idx_feature_created ON feature_executions (created_at);

CREATE TABLE execution_steps (
    id                   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    feature_execution_id uuid NOT NULL REFERENCES feature_executions ON DELETE CASCADE,
    name                 text NOT NULL,
    finished_at          timestamptz NOT NULL,
    detail               text
);
CREATE INDEX idx_step_feature ON execution_steps (feature_execution_id);

-- The ledger: one row for each event of the topic, whatever number of times it was delivered.
CREATE TABLE execution_events (
    event_id             uuid PRIMARY KEY,
    feature_execution_id uuid NOT NULL,
    sequence             bigint NOT NULL,
    type                 text NOT NULL,
    topic                text NOT NULL,
    partition            integer NOT NULL,
    "offset"             bigint NOT NULL,
    produced_at          timestamptz NOT NULL,
    recorded_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    worker               text NOT NULL,
    release              text NOT NULL,
    UNIQUE (topic, partition, "offset")
);
CREATE UNIQUE INDEX idx_event_feature_seq ON execution_events (feature_execution_id, sequence);

-- Deliveries of events that the ledger had already: allowed, and without effect on the features.
CREATE TABLE event_redeliveries (
    topic     text NOT NULL,
    partition integer NOT NULL,
    "offset"  bigint NOT NULL,
    seen_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    worker    text NOT NULL
);
