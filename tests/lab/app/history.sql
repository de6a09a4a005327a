-- Copyright (c) 2026 The lowtide.ops team
-- GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- A history that gives the first maintenance window something to do. Run as superuser, outside a transaction, after
-- schema.sql. Nothing here is in the topic: no row goes to execution_events, and events_applied stays 0.

-- The counters are sent before each ANALYZE and VACUUM, which would set them while changes are still on their way.
SET synchronous_commit = off;
SET session_replication_role = replica;  -- no foreign key checks: the rows below fit by construction
SELECT setseed(0.42);

ALTER TABLE feature_executions SET (autovacuum_enabled = false);
ALTER TABLE execution_steps SET (autovacuum_enabled = false);

-- Statistics from the first thousand rows only.
INSERT INTO feature_executions (id, state, created_at, updated_at, completed_at, error)
    SELECT md5('feature-' || n)::uuid, 6, begun, begun + interval '8 minutes', begun + interval '8 minutes', NULL
    FROM (SELECT n, now() - interval '180 days' + n * interval '2 minutes' AS begun FROM generate_series(1, 1000) AS n) AS history;
INSERT INTO execution_steps (feature_execution_id, name, finished_at)
    SELECT md5('feature-' || n)::uuid, 'analyzing', now() - interval '180 days' FROM generate_series(1, 1000) AS n;
SELECT pg_stat_force_next_flush();
ANALYZE feature_executions, execution_steps;

INSERT INTO feature_executions (id, state, created_at, updated_at, completed_at, error)
    SELECT md5('feature-' || n)::uuid, state, begun, begun + interval '8 minutes',
           CASE WHEN state >= 6 THEN begun + interval '8 minutes' END,
           CASE WHEN state = 7 THEN 'verification failed' END
    FROM (
        SELECT n, now() - interval '180 days' + n * interval '2 minutes' AS begun,
               CASE WHEN n % 50 = 0 THEN 8 WHEN n % 20 = 0 THEN 7 WHEN n % 500 = 1 THEN 4 ELSE 6 END AS state
        FROM generate_series(1001, 100000) AS n
    ) AS history;

-- idx_step_feature is filled in random order and then loses most of what it holds: its pages stay, mostly empty.
INSERT INTO execution_steps (feature_execution_id, name, finished_at)
    SELECT md5('feature-' || 1 + n % 100000)::uuid, 'executing', now() - interval '90 days' FROM generate_series(1001, 200000) AS n;
DELETE FROM execution_steps WHERE id > 1000 AND id % 3 <> 0;
SELECT pg_stat_force_next_flush();
VACUUM (INDEX_CLEANUP on, TRUNCATE off) execution_steps;

-- About 30 % dead rows in both tables.
UPDATE feature_executions SET updated_at = updated_at + interval '1 second' WHERE ('x' || left(id::text, 2))::bit(8)::int < 112;
UPDATE execution_steps SET detail = 'retried' WHERE id % 15 < 6;
SELECT pg_stat_force_next_flush();
