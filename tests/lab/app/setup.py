# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have what the feature service needs outside its cluster: its topic, its role, its database with a history.

    setup.py --brokers HOST:PORT --topic NAME --partitions 12 --database NAME
        --role NAME --maintenance-role NAME --backup-role NAME  (superuser: libpq variables)

The password of the role that owns the database, and those of the accounts of its procedures, are read from the
environment (FEATURE_PASSWORD, FEATURE_MAINTENANCE_PASSWORD, FEATURE_BACKUP_PASSWORD). Those accounts get their rights
after this. Run again, it changes nothing; an earlier run that was killed on the way is begun anew.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import psycopg2
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from psycopg2 import sql
from psycopg2.extensions import encrypt_password

FOLDER = Path(__file__).parent
COMPLETE = "Feature service: schema and history are complete."
"""The database's comment, written last."""
SECONDS = 60.0


def create_topic(brokers: str, topic: str, partitions: int) -> None:
    """Have the topic; it keeps every event, since the audit counts them."""
    settings = {"retention.ms": "-1"}
    admin = AdminClient({"bootstrap.servers": brokers})
    future = admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1, config=settings)])[
        topic
    ]
    try:
        future.result(timeout=SECONDS)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def primary() -> str:
    """The address of the server that takes writes. A standby may not know a new database yet, and says so with an
    error that keeps libpq from asking the next one of PGHOST."""
    connection = psycopg2.connect(dbname="postgres", target_session_attrs="read-write")
    host: str = connection.info.host
    connection.close()
    return host


def connect(host: str, database: str) -> Any:
    """A connection that commits each statement."""
    connection = psycopg2.connect(host=host, dbname=database)
    connection.autocommit = True
    return connection


def create_role(connection: Any, role: str, password: str) -> None:
    """Have the role with this password."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", (role,))
        verb = "ALTER" if cursor.fetchone()[0] else "CREATE"
        statement = sql.SQL(f"{verb} ROLE {{role}} LOGIN PASSWORD {{secret}}")
        secret = sql.Literal(encrypt_password(password, role, connection, "scram-sha-256"))
        cursor.execute(statement.format(role=sql.Identifier(role), secret=secret))


def create_database(host: str, role: str, database: str) -> bool:
    """Have the role's database; whether it is new and empty."""
    connection = connect(host, "postgres")
    names = {"role": sql.Identifier(role), "database": sql.Identifier(database)}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s",
            (database,),
        )
        found = cursor.fetchone()
        if found == (COMPLETE,):
            return False
        cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {database} WITH (FORCE)").format(**names))
        cursor.execute(sql.SQL("CREATE DATABASE {database} OWNER {role}").format(**names))
        cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {database} FROM PUBLIC").format(**names))
    connection.close()
    return True


def create_accounts(host: str, options: argparse.Namespace) -> None:
    """Have the owner and the accounts of the procedures."""
    connection = connect(host, "postgres")
    create_role(connection, options.role, os.environ["FEATURE_PASSWORD"])
    create_role(connection, options.maintenance_role, os.environ["FEATURE_MAINTENANCE_PASSWORD"])
    create_role(connection, options.backup_role, os.environ["FEATURE_BACKUP_PASSWORD"])
    connection.close()


def fill(host: str, role: str, database: str) -> None:
    """Schema, history, and the invalid index that a cancelled REINDEX CONCURRENTLY leaves."""
    connection = connect(host, database)
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(sql.Identifier(role)))
        cursor.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        cursor.execute(FOLDER.joinpath("schema.sql").read_text())
        cursor.execute("RESET ROLE")
        for statement in FOLDER.joinpath("history.sql").read_text().strip().removesuffix(";").split(";\n"):
            cursor.execute(statement)
        cancel_reindex(host, database, cursor)
        cursor.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(database), sql.Literal(COMPLETE)))
    connection.close()


def cancel_reindex(host: str, database: str, cursor: Any) -> None:
    """Leave ``idx_feature_created_ccnew``: a writer holds the rebuild up until its time is over."""
    writer = psycopg2.connect(host=host, dbname=database)
    with writer.cursor() as other:
        other.execute("LOCK TABLE feature_executions IN ROW EXCLUSIVE MODE")
    cursor.execute("SET statement_timeout = '200ms'")
    try:
        cursor.execute("REINDEX INDEX CONCURRENTLY idx_feature_created")
    except psycopg2.errors.QueryCanceled:
        cursor.execute("RESET statement_timeout")
    finally:
        writer.close()
    cursor.execute("SELECT array_agg(indexrelid::regclass::text) FROM pg_index WHERE NOT indisvalid")
    left = cursor.fetchone()[0]
    if left != ["idx_feature_created_ccnew"]:
        raise SystemExit(f"database {database}: its invalid indexes are {left}, not idx_feature_created_ccnew alone.")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Create the feature service's topic, role and database.")
    for name in ("--brokers", "--topic", "--role", "--maintenance-role", "--backup-role", "--database"):
        parser.add_argument(name, required=True)
    parser.add_argument("--partitions", type=int, required=True)
    options = parser.parse_args()
    create_topic(options.brokers, options.topic, options.partitions)
    begin = time.monotonic()
    host = primary()
    create_accounts(host, options)
    if create_database(host, options.role, options.database):
        fill(host, options.role, options.database)
    print(f"{time.monotonic() - begin:.1f}")


if __name__ == "__main__":
    main()
