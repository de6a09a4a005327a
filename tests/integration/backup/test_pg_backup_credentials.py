# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Credentials of S3 that end in the middle of a run: new ones are taken, and where there are none, that is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from support.backups import Site
from support.credential_source_stand_in import CredentialSourceStandIn
from support.modules import ModuleRun, run_module
from support.s3_proxy import Fault, Proxy, Request, s3_proxy
from support.s3_servers import ExpiringKeys

pytestmark = pytest.mark.lab("postgresql", "s3", "versitygw")

# Two parts of 16 MiB.
WIDE = (
    "CREATE TABLE wide AS"
    " SELECT g, (SELECT string_agg(md5((g * 1000 + i)::text), '') FROM generate_series(1, 100) i) AS v"
    " FROM generate_series(1, 12000) g"
)
EXPIRED = Fault(status=400, code="ExpiredToken", message="The provided token has expired.")


@contextmanager
def short_lived_keys(
    site: Site, rule: Callable[[CredentialSourceStandIn, Request], Fault | None]
) -> Iterator[tuple[Proxy, dict[str, Any], dict[str, str]]]:
    """A proxy with ``rule`` in front of the bucket, options without keys, and the environment of a source of keys."""
    with (
        CredentialSourceStandIn(site.server, lifetime=timedelta(minutes=5)) as source,
        s3_proxy(site.server["endpoint_url"], lambda request: rule(source, request)) as proxy,
    ):
        params = site.params(endpoint_url=proxy.url, max_age="0")
        for name in ("credentials_file", "profile"):
            del params[name]
        yield proxy, params, {**source.environment, "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}


def newest(site: Site) -> list[str]:
    """The backups that count, by name."""
    info = run_module("pg_backup_info", site.s3_params())
    assert not info.failed, info.msg
    return [entry["run_id"] for entry in info["backups"]]


def check_nothing_is_lost(site: Site, first: ModuleRun, failed: ModuleRun) -> None:
    """The backup of before still counts, what the failed run left is named, and the next run makes one."""
    assert failed.failed
    assert "Traceback" not in failed.stderr
    assert newest(site) == [first["backup"]["run_id"]]
    assert f"s3://{site.bucket}/" in failed["left_behind"]
    assert failed["error"]["refused"] is False
    again = run_module("pg_backup", site.params(max_age="0"))
    assert again.changed, again.msg
    assert newest(site) == [again["backup"]["run_id"], first["backup"]["run_id"]]


@pytest.mark.procedure("C18")
def test_keys_that_expire_while_the_dump_is_sent_are_followed_by_new_ones(real_site: Site) -> None:
    """No key is good for more than one request; the backup is whole, and verified with yet other keys."""
    real_site.sql(WIDE)
    keys = ExpiringKeys(1)
    with short_lived_keys(real_site, lambda _source, request: keys(request)) as (proxy, params, environment):
        done = run_module("pg_backup", params, env=environment)
        parts = [request.access_key for request in proxy.seen if "partNumber=" in request.target]
        reads = [request.access_key for request in proxy.seen if request.is_dump_read]
    assert done.changed, done.msg
    assert len({*parts, *reads}) == len(parts) + len(reads) >= 3
    assert newest(real_site) == [done["backup"]["run_id"]]
    assert not run_module("pg_backup_info", real_site.s3_params(verify="full")).failed
    real_site.nothing_left()


def test_a_source_that_has_no_more_keys_is_named(real_site: Site) -> None:
    """It closes while the dump is sent: neither the upload nor its removal can go on."""
    first = run_module("pg_backup", real_site.params())
    real_site.sql(WIDE)
    keys = ExpiringKeys(1)

    def rule(source: CredentialSourceStandIn, request: Request) -> Fault | None:
        if "partNumber=" in request.target:
            source.close()
        return keys(request)

    with short_lived_keys(real_site, rule) as (_proxy, params, environment):
        failed = run_module("pg_backup", params, env=environment)
    assert failed["error"]["object"] == "S3 credentials", failed.msg
    assert "Error when retrieving credentials" in failed["error"]["problem"]
    assert "Renew them" in failed["error"]["next_step"]
    check_nothing_is_lost(real_site, first, failed)


@pytest.mark.parametrize("moment", ["partNumber=", "manifest.json"])
def test_keys_that_nobody_renews_are_named(real_site: Site, moment: str) -> None:
    """A token in the options ends while the dump is sent, or when it has been verified and only the manifest lacks."""
    first = run_module("pg_backup", real_site.params())
    real_site.sql(WIDE)
    ended: list[Request] = []

    def rule(request: Request) -> Fault | None:
        if ended or (request.method == "PUT" and moment in request.target):
            ended.append(request)
        return EXPIRED if ended else None

    with s3_proxy(real_site.server["endpoint_url"], rule) as proxy:
        failed = run_module("pg_backup", real_site.params(endpoint_url=proxy.url, max_age="0"))
    assert failed["error"]["problem"].endswith("has expired (ExpiredToken, HTTP 400, The provided token has expired)")
    assert "Renew session_token" in failed["error"]["next_step"]
    check_nothing_is_lost(real_site, first, failed)
