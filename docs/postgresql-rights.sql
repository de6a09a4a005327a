-- What accounts need in a database for the roles and modules of PostgreSQL, and nothing else. PostgreSQL 14 to 18; the
-- lab's tests execute this file as it is, and fail when one of its grants is taken away.
--
-- Run it by psql as a superuser, on the primary, connected to the database of the site, here shop. Name only the accounts
-- that the site uses; the others are left out. One name may stand for several of them:
--
--   psql -d shop -f docs/postgresql-rights.sql -v owner=shop_owner -v maintenance=lowtide_maintenance \
--     -v backup=lowtide_backup -v restore=lowtide_restore -v query=lowtide_query -v ledger=event_ledger \
--     -v monitor=lowtide_monitor -v integrity=lowtide_integrity \
--     -v credentials=lowtide_credentials -v first=shop_a -v second=shop_b
--
--   owner        the role that owns database and tables; needed with restore, and with maintenance up to PostgreSQL 16
--   maintenance  pg_maintenance, pg_maintenance_info, the role database_maintenance
--   backup       pg_backup, the role backup
--   restore      pg_restore, pg_restore_drill, the roles restore and restore_drill. A superuser is needed for roles that are
--                to be created (roles: created), for extensions that are not trusted, and in PostgreSQL 14, where the
--                schema public belongs to one. Where the database was made before PostgreSQL 15 it still does: once
--                ALTER SCHEMA public OWNER TO pg_database_owner, and back up again. On a server for drills only run it in postgres, once the owner and the other
--                roles of the backup are there
--   query        pg_query_info and the role event_reconciliation, which read the table ledger
--   ledger       that table, as table or schema.table
--   monitor      the role health
--   integrity    pg_integrity_info and the role corruption_triage; after CREATE EXTENSION amcheck, which is no account's
--   credentials  pg_credential and the role credentials
--   first        the application's role whose password that account replaces
--   second       the other one, where two take turns
--
-- An account that is not there is made without a password. Give it one with \password lowtide_maintenance, then let it in
-- by pg_hba.conf. Run the file again after a schema, a large object or a table with row-level security was added. All of it
-- is one transaction: after an error nothing has been done.
--
-- pg_read_all_data, pg_maintain and pg_read_all_stats are rights in each database that an account comes into, and into most of
-- them PUBLIC may connect. So that an account reads this database only, let it into no other, first of its lines in pg_hba.conf
-- on each member of the cluster:
--
--   host shop lowtide_backup 10.0.0.0/8 scram-sha-256
--   host all  lowtide_backup all        reject
--
-- Without a superuser, as on a managed server: who runs it needs CREATEROLE, ADMIN OPTION on the roles that are granted, and
-- the rights of the owner of the database. Of row-level security it says what it could not give.
\set ON_ERROR_STOP on
SELECT version >= 170000 AS has_maintain, version >= 180000 AS has_object_defaults,
       CASE WHEN version >= 160000 THEN 'WITH INHERIT TRUE' ELSE '' END AS inherited,
       rolsuper OR (version >= 160000 AND rolbypassrls) AS may_bypass
  FROM pg_roles, CAST(current_setting('server_version_num') AS int) AS version WHERE rolname = current_user \gset

\if :{?maintenance}
\elif :{?backup}
\elif :{?restore}
\elif :{?query}
\elif :{?monitor}
\elif :{?credentials}
\elif :{?integrity}
\else
  DO 'BEGIN RAISE ''no account is named: give -v backup=NAME or another one of those in the head of this file''; END';
\endif
\if :{?query}
  \if :{?ledger}
  \else
    DO 'BEGIN RAISE ''the account query reads one table: give -v ledger=NAME''; END';
  \endif
\endif
\if :{?restore}
  \if :{?owner}
  \else
    DO 'BEGIN RAISE ''the account restore hands over to the owner what it restores: give -v owner=NAME''; END';
  \endif
\endif
\if :{?credentials}
  \if :{?first}
  \else
    DO 'BEGIN RAISE ''the account credentials replaces the password of a role: give -v first=NAME''; END';
  \endif
\endif
BEGIN;

\if :{?maintenance}
  SELECT format('CREATE ROLE %I LOGIN', :'maintenance')
   WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'maintenance') \gexec
  SELECT DISTINCT format('ALTER ROLE %I INHERIT', rolname) FROM pg_roles WHERE rolname = :'maintenance' AND NOT rolinherit \gexec
  -- To come in, where PUBLIC may not.
  GRANT CONNECT ON DATABASE :"DBNAME" TO :"maintenance";
  \if :has_maintain
    -- VACUUM, ANALYZE and REINDEX of every table. To drop what an interrupted rebuild leaves takes the owner all the same:
    -- GRANT shop_owner TO lowtide_maintenance, or drop it as the owner.
    GRANT pg_maintain TO :"maintenance" :inherited;
  \elif :{?owner}
    -- The same before PostgreSQL 17. It gives every right of the owner.
    GRANT :"owner" TO :"maintenance" :inherited;
  \else
    DO 'BEGIN RAISE ''up to PostgreSQL 16 only the owner of a table may vacuum it: give -v owner=NAME''; END';
  \endif
  -- To name tables and indexes: the right to maintain a table does not open its schema.
  SELECT format('GRANT USAGE ON SCHEMA %I TO %I', nspname, :'maintenance')
    FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' \gexec
  -- To see whose transaction holds back a VACUUM, or would hold up the rebuild of an index; without it none is rebuilt.
  GRANT pg_read_all_stats TO :"maintenance" :inherited;
  -- To measure the bloat of indexes by the extension pgstattuple. Where it is not installed, and the account does not own
  -- the tables, bloat can only be estimated from pg_stats, which takes GRANT pg_read_all_data: the right to read all rows.
  GRANT pg_stat_scan_tables TO :"maintenance" :inherited;
\endif

\if :{?backup}
  SELECT format('CREATE ROLE %I LOGIN', :'backup')
   WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'backup') \gexec
  SELECT DISTINCT format('ALTER ROLE %I INHERIT', rolname) FROM pg_roles WHERE rolname = :'backup' AND NOT rolinherit \gexec
  -- To come in, where PUBLIC may not.
  GRANT CONNECT ON DATABASE :"DBNAME" TO :"backup";
  -- Every table, sequence and schema: pg_dump stops at the first that it may not read.
  GRANT pg_read_all_data TO :"backup" :inherited;
  -- Large objects, which pg_read_all_data does not open: those that there are.
  SELECT format('GRANT SELECT ON LARGE OBJECT %s TO %I', oid, :'backup') FROM pg_largeobject_metadata \gexec
  -- And those that are yet to be stored, by a role that has stored some. Before PostgreSQL 18 only the rights of that role
  -- open them: for an application that stores some all the time, GRANT shop_owner TO lowtide_backup, which gives it all of them.
  \if :has_object_defaults
    SELECT DISTINCT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I GRANT SELECT ON LARGE OBJECTS TO %I', rolname, :'backup')
      FROM pg_largeobject_metadata JOIN pg_roles ON pg_roles.oid = lomowner WHERE NOT rolsuper \gexec
  \endif
\endif

\if :{?restore}
  SELECT format('CREATE ROLE %I LOGIN', :'restore')
   WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'restore') \gexec
  -- To make a database beside the live one, and to rename.
  SELECT format('ALTER ROLE %I CREATEDB', :'restore') \gexec
  -- To hand over to the owner what is restored, and to rename the live database, which is the owner's. It gives every right
  -- of the owner, so this account is none for daily use. Other owners of objects are to be granted in the same way.
  GRANT :"owner" TO :"restore" :inherited;
  -- To come into the database that it connects to (maintenance_db, postgres unless another one is named), where PUBLIC may
  -- not: GRANT CONNECT ON DATABASE postgres TO lowtide_restore. The one that this file is executed in is to be renamed.
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
  SELECT DISTINCT format('ALTER ROLE %I INHERIT', rolname) FROM pg_roles WHERE rolname = :'monitor' AND NOT rolinherit \gexec
  -- To come in, where PUBLIC may not.
  GRANT CONNECT ON DATABASE :"DBNAME" TO :"monitor";
  -- Standbys, and the sessions of other users.
  GRANT pg_read_all_stats TO :"monitor" :inherited;
\endif

\if :{?credentials}
  -- It inherits nothing: to set the password of a role it becomes that role, which needs no right to make or alter roles.
  SELECT format('CREATE ROLE %I LOGIN NOINHERIT', :'credentials')
   WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'credentials') \gexec
  -- To come in, where PUBLIC may not.
  GRANT CONNECT ON DATABASE :"DBNAME" TO :"credentials";
  GRANT :"first" TO :"credentials";
  \if :{?second}
    GRANT :"second" TO :"credentials";
  \endif
\endif

\if :{?integrity}
  SELECT format('CREATE ROLE %I LOGIN', :'integrity')
   WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'integrity') \gexec
  -- To come in, where PUBLIC may not. Only there: in a restored copy another grant would be a difference from its backup.
  SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'integrity')
   WHERE NOT has_database_privilege(:'integrity', current_database(), 'CONNECT') \gexec
  -- What reads tables and indexes to their ends. It returns places and no values. Without the extension nothing is granted.
  SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', p.oid::regprocedure, :'integrity')
    FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
    JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
   WHERE e.extname = 'amcheck' AND p.proname IN ('verify_heapam', 'bt_index_check', 'gin_index_check') \gexec
\endif

\if :{?backup}
  -- Rows that row-level security would hide, only where a table has it: pg_dump refuses to leave them out. Only a superuser
  -- may give it, from PostgreSQL 16 on also a role that has it.
  SELECT EXISTS (SELECT FROM pg_class WHERE relrowsecurity) AND NOT rolbypassrls AS needs_bypass
    FROM pg_roles WHERE rolname = :'backup' \gset
  \if :needs_bypass
    \if :may_bypass
      SELECT format('ALTER ROLE %I BYPASSRLS', :'backup') \gexec
    \else
      \warn Tables have row-level security, and this user may not give BYPASSRLS. All else is done. For tables without FORCE ROW
      \warn LEVEL SECURITY the rights of their owner are enough, all of them: GRANT shop_owner TO lowtide_backup.
    \endif
  \endif
\endif

\if :{?restore}
  -- Rows that row-level security would hide from their owner too: they are compared after a restore.
  SELECT EXISTS (SELECT FROM pg_class WHERE relforcerowsecurity) AND NOT rolbypassrls AS needs_bypass
    FROM pg_roles WHERE rolname = :'restore' \gset
  \if :needs_bypass
    \if :may_bypass
      SELECT format('ALTER ROLE %I BYPASSRLS', :'restore') \gexec
    \else
      \warn Tables have FORCE ROW LEVEL SECURITY, and this user may not give BYPASSRLS. All else is done. Restores of them take it.
    \endif
  \endif
\endif
COMMIT;
