-- What accounts need in MariaDB for the modules and roles of MySQL, and nothing else. The lab executes this file as it is.
--
-- The accounts are there already, each with a password (CREATE USER lowtide_backup@'%' IDENTIFIED BY '...'). Put
-- the names of the site in the place of these, and of the database for shop, then run it on the primary:
--
--   mariadb --defaults-file=/root/root.cnf < docs/mysql-rights.sql
--
--   lowtide_backup   mysql_backup, the role mysql_backup
--   lowtide_restore  mysql_restore, the role mysql_restore
--   lowtide_monitor  mysql_health_info, the role mysql_connections
--
-- With a binary log, triggers and functions are made only where log_bin_trust_function_creators is ON, or by an account that
-- has SUPER. The former is less: set it for the time of the restore, or for good.
--
-- An underscore in the name of a database is written as \_ here, since it stands for any character.

-- Rows, views, triggers and events of the database.
GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `shop`.* TO lowtide_backup@'%';
-- Routines: their text is shown to nobody else but who made them.
GRANT SELECT ON mysql.proc TO lowtide_backup@'%';
-- The position in the binary log that belongs to the snapshot, and how far a replica is behind.
GRANT BINLOG MONITOR, REPLICA MONITOR ON *.* TO lowtide_backup@'%';

-- The database itself, the one beside it (shop__restored), and the one that keeps the original (shop__original).
GRANT ALL ON `shop`.* TO lowtide_restore@'%';
GRANT ALL ON `shop\_\_restored`.* TO lowtide_restore@'%';
GRANT ALL ON `shop\_\_original`.* TO lowtide_restore@'%';
-- Objects come back with the definers that they had.
GRANT SET USER ON *.* TO lowtide_restore@'%';
-- Who is connected to the database that is to be replaced, and whether the server is a replica, which is refused.
GRANT PROCESS, REPLICA MONITOR ON *.* TO lowtide_restore@'%';
-- Routines of others, and which definers there are.
GRANT SELECT ON mysql.proc TO lowtide_restore@'%';
GRANT SELECT (User, Host) ON mysql.user TO lowtide_restore@'%';

-- Sessions and transactions of all users, and how far a replica is behind.
GRANT PROCESS, REPLICA MONITOR ON *.* TO lowtide_monitor@'%';
