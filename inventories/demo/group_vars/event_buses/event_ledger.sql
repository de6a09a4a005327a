-- What the feature service recorded of the offsets that its group has passed; see the role event_reconciliation.
WITH passed AS (
  SELECT event.recorded_at
    FROM jsonb_to_recordset(%(passed)s::jsonb) AS log (topic text, partition integer, log_start bigint, committed bigint)
    JOIN execution_events AS event
      ON event.topic = log.topic AND event.partition = log.partition
     AND event."offset" >= log.log_start AND event."offset" < log.committed
)
SELECT
  (SELECT count(*) FROM passed) AS recorded,
  (SELECT coalesce(sum(events_applied), 0) FROM feature_executions)::bigint
    - (SELECT count(*) FROM execution_events) AS doubled,
  (SELECT count(*) FROM passed WHERE recorded_at >= %(since)s::timestamptz) AS recorded_since
