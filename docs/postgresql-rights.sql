-- What accounts need in a database for the roles and modules of PostgreSQL, and nothing else. PostgreSQL 14 to 18; the
-- lab's tests execute this file as it is, and fail when one of its grants is taken away.
--
-- Run it by psql as a superuser, on the primary, connected to the database of the site, here shop. Name only the accounts
-- that the site uses; the others are left out. One name may stand for several of them:
--
--   psql -d shop -f docs/postgresql-rights.sql -v owner=shop_owner -v maintenance=lowtide_maintenance \
--     -v backup=lowtide_backup -v restore=lowtide_restore -v query=lowtide_query -v ledger=event_ledger -v monitor=lowtide_monitor
--
--   owner        the role that owns database and tables; needed with restore, and with maintenance up to PostgreSQL 16
--   maintenance  pg_maintenance, pg_maintenance_info, the role database_maintenance
--   backup       pg_backup, the role backup
--   restore      pg_restore, pg_restore_drill, the roles restore and restore_drill. A superuser is needed for roles that are
--                to be created (roles: created), for extensions that are not trusted, and in PostgreSQL 14, where the
--                schema public belongs to one
--   query        pg_query_info and the role event_reconciliation, which read the table ledger
--   ledger       that table, as table or schema.table
--   monitor      the role health
--
-- An account that is not there is made without a password. Give it one with \password lowtide_maintenance, then let it in
-- by pg_hba.conf. Run the file again after a schema, a large object or a table with row-level security was added.
\set ON_ERROR_STOP on
SELECT current_setting('server_version_num')::int >= 170000 AS has_maintain \gset

\if :{?maintenance}
  SELECT format('CREATE ROLE %I LOGIN', :'maintenance')
   WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'maintenance') \gexec
  -- To come in, where PUBLIC may not.
  GRANT CONNECT ON DATABASE :"DBNAME" TO :"maintenance";
  \if :has_maintain
    -- VACUUM, ANALYZE and REINDEX of every table. To drop what an interrupted rebuild leaves takes the owner all the same:
    -- GRANT shop_owner TO lowtide_maintenance, or drop it as the owner.
    GRANT pg_maintain TO :"maintenance";
  \elif :{?owner}
    -- The same before PostgreSQL 17. It gives every right of the owner.
    GRANT :"owner" TO :"maintenance";
  \else
    DO 'BEGIN RAISE ''up to PostgreSQL 16 only the owner of a table may vacuum it: give -v owner=NAME''; END';
  \endif
  -- To name tables and indexes: the right to maintain a table does not open its schema.
  SELECT format('GRANT USAGE ON SCHEMA %I TO %I', nspname, :'maintenance')
    FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' \gexec
  -- To see whose transaction holds back a VACUUM, or would hold up the rebuild of an index; without it none is rebuilt.
  GRANT pg_read_all_stats TO :"maintenance";
  -- To measure the bloat of indexes by the extension pgstattuple. Where it is not installed, and the account does not own
  -- the tables, bloat can only be estimated from pg_stats, which takes GRANT pg_read_all_data: the right to read all rows.
  GRANT pg_stat_scan_tables TO :"maintenance";
\endif

\if :{?backup}
  SELECT format('CREATE ROLE %I LOGIN', :'backup')
   WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'backup') \gexec
  -- To come in, where PUBLIC may not.
  GRANT CONNECT ON DATABASE :"DBNAME" TO :"backup";
  -- Every table, sequence and schema: pg_dump stops at the first that it may not read.
  GRANT pg_read_all_data TO :"backup";
  -- Large objects, which pg_read_all_data does not open.
  SELECT format('GRANT SELECT ON LARGE OBJECT %s TO %I', oid, :'backup') FROM pg_largeobject_metadata \gexec
  -- Rows that row-level security would hide, only where a table has it: pg_dump refuses to leave them out.
  SELECT format('ALTER ROLE %I BYPASSRLS', :'backup') WHERE EXISTS (SELECT FROM pg_class WHERE relrowsecurity) \gexec
\endif

\if :{?restore}
  SELECT format('CREATE ROLE %I LOGIN', :'restore')
   WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'restore') \gexec
  -- To make a database beside the live one, and to rename.
  SELECT format('ALTER ROLE %I CREATEDB', :'restore') \gexec
  -- To hand over to the owner what is restored, and to rename the live database, which is the owner's. It gives every right
  -- of the owner, so this account is none for daily use. Other owners of objects are to be granted in the same way.
  GRANT :"owner" TO :"restore";
  -- To come into the database that it connects to, here the one that this file is executed in: name it as maintenance_db.
\endif

\if :{?query}
  SELECT format('CREATE ROLE %I LOGIN', :'query')
   WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'query') \gexec
  -- To come in, where PUBLIC may not.
  GRANT CONNECT ON DATABASE :"DBNAME" TO :"query";
  -- The schema of the ledger, and the ledger: what event_reconciliation_query reads. Nothing else is asked for.
  SELECT format('GRANT USAGE ON SCHEMA %I TO %I', nspname, :'query')
    FROM pg_namespace WHERE oid = (SELECT relnamespace FROM pg_class WHERE oid = :'ledger'::regclass) \gexec
  SELECT format('GRANT SELECT ON %s TO %I', :'ledger'::regclass, :'query') \gexec
\endif

\if :{?monitor}
  SELECT format('CREATE ROLE %I LOGIN', :'monitor')
   WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'monitor') \gexec
  -- To come in, where PUBLIC may not.
  GRANT CONNECT ON DATABASE :"DBNAME" TO :"monitor";
  -- Standbys, and the sessions of other users.
  GRANT pg_read_all_stats TO :"monitor";
\endif
