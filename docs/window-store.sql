-- The tables of window_store.postgresql: lease, journals and reports of windows, of any number of sites in one database.
-- A window that is opened by the database's owner makes them itself. Otherwise run this as the owner, and name the role
-- that windows connect as in place of lowtide_operator. It needs no other right in the database, but to come in, where PUBLIC
-- may not: GRANT CONNECT ON DATABASE ops TO lowtide_operator. The lab's tests execute this file as it is, and fail when one of
-- its grants is taken away.
--
--   psql --set ON_ERROR_STOP=1 --dbname ops --file docs/window-store.sql

CREATE SCHEMA IF NOT EXISTS lowtide_window;

-- One row for each site: who holds it or held it last, and when that was renewed.
CREATE TABLE IF NOT EXISTS lowtide_window.lease (
  site text PRIMARY KEY,
  token bigint NOT NULL,
  released boolean NOT NULL,
  record jsonb NOT NULL,
  renewed timestamptz NOT NULL
);

-- One row for each line of a journal; they are never changed.
CREATE TABLE IF NOT EXISTS lowtide_window.event (
  site text NOT NULL,
  journal text NOT NULL,
  number integer NOT NULL,
  token bigint NOT NULL,
  line text NOT NULL,
  PRIMARY KEY (site, journal, number)
);

CREATE TABLE IF NOT EXISTS lowtide_window.report (
  site text NOT NULL,
  journal text NOT NULL,
  token bigint NOT NULL,
  suffix text NOT NULL,
  contents text NOT NULL,
  PRIMARY KEY (site, journal, token, suffix)
);

GRANT USAGE ON SCHEMA lowtide_window TO lowtide_operator;
GRANT SELECT, INSERT, UPDATE ON lowtide_window.lease, lowtide_window.report TO lowtide_operator;
GRANT SELECT, INSERT ON lowtide_window.event TO lowtide_operator;
GRANT DELETE ON lowtide_window.event, lowtide_window.report TO lowtide_operator;
