# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stand-in for a source of temporary AWS credentials: the endpoint that containers ask (ECS, EKS Pod Identity).

The keys are real: each answer makes an account of versitygw, and ``expire`` deletes those made so far, so that it is
the server that refuses them (as InvalidAccessKeyId; AWS says ExpiredToken, for which there is
``support.s3_servers.ExpiringKeys``). Only who hands them out is a stand-in.
"""

from __future__ import annotations

import json
import secrets
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.credentials import Credentials
from labkit.versitygw_setup import create_account, delete_account, read_keys

from support.http_proxy import Exchange, HttpProxy


class CredentialSourceStandIn(HttpProxy):
    """Hands out keys of the versitygw of ``facts`` that say to be valid for ``lifetime``.

    An SDK fetches new ones some minutes before the end of the lifetime; shorter ones it fetches for each request.
    """

    def __init__(self, facts: dict[str, Any], *, lifetime: timedelta = timedelta(hours=1)) -> None:
        self.issued: list[str] = []
        """Access keys, in the order in which they were handed out."""
        self._endpoint = facts["endpoint_url"]
        self._root = read_keys(facts["credentials_file"])
        self._lifetime = lifetime
        self._living: set[str] = set()
        self._is_closed = threading.Event()
        super().__init__()

    @property
    def environment(self) -> dict[str, str]:
        """What makes an SDK ask here."""
        return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url}/credentials"}

    def respond(self, exchange: Exchange) -> None:
        """Make an account and hand out its keys, unless the source is closed."""
        if self._is_closed.is_set():
            exchange.answer(503, b"no credentials today", {})
            return
        keys = Credentials(f"TEMP{secrets.token_hex(8).upper()}", secrets.token_hex(20))
        create_account(self._endpoint, self._root, keys, role="admin")
        with self.lock:
            self.issued.append(keys.access_key)
            self._living.add(keys.access_key)
        answer = {
            "AccessKeyId": keys.access_key,
            "SecretAccessKey": keys.secret_key,
            "Token": "of the stand-in",
            "Expiration": (datetime.now(UTC) + self._lifetime).isoformat(),
        }
        exchange.answer(200, json.dumps(answer).encode(), {})

    def close(self) -> None:
        """Hand out no more keys."""
        self._is_closed.set()

    def expire(self) -> None:
        """End the validity of everything handed out so far."""
        with self.lock:
            expired, self._living = self._living, set()
        for access_key in expired:
            delete_account(self._endpoint, self._root, access_key)

    def __exit__(self, *arguments: Any) -> None:
        super().__exit__(*arguments)
        self.expire()
