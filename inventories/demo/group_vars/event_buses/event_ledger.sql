-- What the feature service recorded of the offsets that its group has passed; see the role event_reconciliation.
-- How often events took effect is known in sum only, and told with the first partition.
WITH passed AS (
  SELECT log.topic, log.partition, event.recorded_at
    FROM jsonb_to_recordset(%(passed)s::jsonb) AS log (topic text, partition integer, log_start bigint, committed bigint)
    LEFT JOIN execution_events AS event
      ON event.topic = log.topic AND event.partition = log.partition
     AND event."offset" >= log.log_start AND event."offset" < log.committed
)
SELECT topic, partition,
  count(recorded_at) AS recorded,
  CASE WHEN row_number() OVER (ORDER BY topic, partition) > 1 THEN 0 ELSE
    (SELECT coalesce(sum(events_applied), 0) FROM feature_executions)::bigint - (SELECT count(*) FROM execution_events)
  END AS doubled,
  count(*) FILTER (WHERE recorded_at >= %(since)s::timestamptz) AS recorded_since
FROM passed
GROUP BY topic, partition
