# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read how a MariaDB server fares with its connections; what mysql_health_info calls.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import socket
import typing as t
from dataclasses import replace
from datetime import UTC, datetime

from .._common.errors import OpsError, Refusal
from .connection import Session, Settings, read_replication, settings_from, warn_unverified
from .errors import read_code
from .findings import (
    STEPS,
    Finding,
    Limits,
    Reading,
    Tried,
    explain_restart,
    judge,
    judge_no_connection,
    summarize,
    word_refusal,
)

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from .._common.outcome import Outcome

HEALTH_SPEC: dict[str, dict[str, t.Any]] = {
    "connections_ratio": {"type": "float", "default": 0.8},
    "idle": {"type": "int", "default": 300},
    "transaction": {"type": "int", "default": 60},
    "lag": {"type": "int", "default": 30},
    "tried": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "step": {"type": "str", "required": True, "choices": list(STEPS)},
            "at": {"type": "str", "required": True},
        },
    },
    "settle": {"type": "int", "default": 30},
    "query_timeout": {"type": "int", "default": 10},
}
COUNTERS = (
    *("Aborted_clients", "Aborted_connects", "Connections", "Max_used_connections", "Threads_connected"),
    *("Threads_running", "Uptime", "Connection_errors_accept", "Connection_errors_internal"),
    *("Connection_errors_max_connections", "Connection_errors_peer_address", "Connection_errors_select"),
    "Connection_errors_tcpwrap",
)
_SESSIONS = """
SELECT ID AS id, USER AS user, HOST AS host, DB AS db, COMMAND AS command, TIME AS seconds, STATE AS state
  FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND COMMAND <> 'Daemon' ORDER BY ID
"""
_TRANSACTIONS = """
SELECT p.ID AS id, p.USER AS user, p.COMMAND AS command, x.trx_rows_modified AS rows_modified,
       TIMESTAMPDIFF(SECOND, x.trx_started, CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', 'SYSTEM')) AS seconds
  FROM information_schema.INNODB_TRX x JOIN information_schema.PROCESSLIST p ON p.ID = x.trx_mysql_thread_id
 WHERE p.ID <> CONNECTION_ID() ORDER BY x.trx_started
"""
_WAITS = """
SELECT r.trx_mysql_thread_id AS waiter, b.trx_mysql_thread_id AS holder, p.USER AS holder_user,
       p.COMMAND AS holder_command
  FROM information_schema.INNODB_LOCK_WAITS w
  JOIN information_schema.INNODB_TRX r ON r.trx_id = w.requesting_trx_id
  JOIN information_schema.INNODB_TRX b ON b.trx_id = w.blocking_trx_id
  JOIN information_schema.PROCESSLIST p ON p.ID = b.trx_mysql_thread_id
"""


def read_tried(entries: t.Iterable[t.Mapping[str, str]]) -> list[Tried]:
    """Return the steps that are declared as tried; a moment without a time zone is refused."""
    tried: list[Tried] = []
    for entry in entries:
        try:
            at = datetime.fromisoformat(entry["at"].replace("Z", "+00:00"))
        except ValueError:
            at = datetime.min
        if at.tzinfo is None:
            raise Refusal(
                obj=f"option tried, step {entry['step']}",
                problem=f"{entry['at']!r} is not a moment in ISO 8601 with a time zone",
                next_step="Give for example 2026-11-21T02:00:00Z",
            )
        tried.append(Tried(entry["step"], at))
    return tried


def health_info(module: AnsibleModule, outcome: Outcome) -> None:
    """Do the work of mysql_health_info: evidence also where there is no connection, which is what it is for."""
    params = module.params
    tried = read_tried(params["tried"])
    settings = replace(settings_from(params), read_timeout=params["query_timeout"])
    warn_unverified(module, settings)
    limits = Limits(params["connections_ratio"], params["idle"], params["transaction"], params["lag"])
    now = datetime.now(UTC)
    outcome.facts |= {"read_at": now.strftime("%Y-%m-%dT%H:%M:%SZ"), "server": settings.place}
    try:
        with Session(settings) as session:
            reading = read_server(session, limits)
            server = session.server
    except OpsError as error:
        findings = [explain_no_connection(settings, error)]
        outcome.facts |= {"reachable": False, "connections": None, "users": [], "transactions": [], "replica": None}
        used, maximum = None, None
    else:
        findings = judge(reading)
        used, maximum = reading.used, reading.max_connections
        outcome.facts |= {
            "reachable": True,
            "version": server.version,
            "connections": {"max": maximum, "used": used, **{name.lower(): reading.status[name] for name in COUNTERS}},
            "users": reading.count_by_user(),
            "transactions": list(reading.transactions),
            "waits": list(reading.waits),
            "read_only": reading.read_only,
            "replica": reading.replica,
        }
    reasons = explain_restart(findings, tried, now=now, settle=params["settle"])
    outcome.facts |= {
        "findings": [finding.as_dict() for finding in findings],
        "restart_refused": bool(reasons),
        "restart_reasons": reasons,
        "restart_refusal": word_refusal(reasons),
    }
    outcome.summary = summarize(findings, used=used, maximum=maximum)
    outcome.evidence = [f"{finding.name}: {finding.what}" for finding in findings]


def read_server(session: Session, limits: Limits) -> Reading:
    """Ask the server; an account without PROCESS would see its own sessions only, and is refused."""
    grants = [str(next(iter(row.values()))) for row in session.query("SHOW GRANTS")]
    if not any("PROCESS" in text or "ALL PRIVILEGES ON *.*" in text for text in grants):
        raise Refusal(
            obj=session.settings.target,
            problem="this account sees no sessions but its own: it lacks PROCESS",
            next_step="Give login_user the rights of docs/mysql-rights.sql",
        )
    status = {row["Variable_name"]: row["Value"] for row in session.query("SHOW GLOBAL STATUS")}
    row = session.query("SELECT @@max_connections AS maximum, @@read_only AS read_only")[0]
    return Reading(
        max_connections=int(row["maximum"]),
        status={name: int(status.get(name, 0)) for name in COUNTERS},
        sessions=session.query(_SESSIONS),
        transactions=session.query(_TRANSACTIONS),
        waits=session.query(_WAITS),
        read_only=bool(row["read_only"]),
        replica=read_replica(session),
        limits=limits,
    )


def read_replica(session: Session) -> dict[str, t.Any] | None:
    """Ask how replication fares; None where this server is no replica. Of several connections the worst is told."""
    rows = read_replication(session)
    if not rows:
        return None
    status = max(rows, key=rank_replication)
    return {
        "lag": status.get("Seconds_Behind_Master"),
        "io": status.get("Slave_IO_Running"),
        "sql": status.get("Slave_SQL_Running"),
        "error": status.get("Last_IO_Error") or status.get("Last_SQL_Error") or "",
    }


def rank_replication(status: t.Mapping[str, t.Any]) -> tuple[bool, int]:
    """Return how bad a connection fares: one that does not run is worse than any lag."""
    lag = status.get("Seconds_Behind_Master")
    return lag is None, lag or 0


def explain_no_connection(settings: Settings, error: OpsError) -> Finding:
    """Return what it means that there is no connection, with what the network says."""
    if isinstance(error.__cause__, Exception):
        code = read_code(error.__cause__)
    else:
        code = 0
        if isinstance(error, Refusal):
            raise error  # another product, an old version, a right that is missing: no matter of connections
    return judge_no_connection(code, f"{error.obj}: {error.problem}", error.next_step, answers=is_answered(settings))


def is_answered(settings: Settings) -> bool:
    """Return whether its port, or its socket, accepts a connection."""
    family, address = (
        (socket.AF_UNIX, settings.unix_socket) if settings.unix_socket else (None, (settings.host, settings.port))
    )
    try:
        if family is None:
            socket.create_connection(t.cast("tuple[str, int]", address), timeout=settings.connect_timeout).close()
        else:
            with socket.socket(family) as client:
                client.settimeout(settings.connect_timeout)
                client.connect(t.cast("str", address))
    except OSError:
        return False
    return True
