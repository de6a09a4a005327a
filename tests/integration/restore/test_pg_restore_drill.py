# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_restore_drill on real servers: proven by the application's query, measured, signed, removed; and what does not count."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._backup.manifest import stamp
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.evidence import Signer
from support.modules import CHECKOUT, ModuleRun, run_module, start_module
from support.postgresql_proxy import Statement, StatementProxy
from support.restores import Shop
from support.s3_proxy import Fault, Request, s3_proxy
from support.turns import is_sweep

pytestmark = pytest.mark.lab("postgresql_versions", "versitygw")

CHECK = CHECKOUT / "tests/support/check_drill.sh"
QUERY = "SELECT count(*) = 500 AS has_orders, count(*) AS orders FROM shop.orders"
Drill = Callable[..., ModuleRun]


def make_key(path: Path) -> Path:
    """A key as an operator makes it."""
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True)
    path.chmod(0o600)
    return path


def wanted(shop: Shop, key: Path, **more: Any) -> dict[str, Any]:
    """Options of the module."""
    return {**shop.params(query=QUERY, signing_key=str(key)), **more}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The site's key."""
    return make_key(tmp_path / "drill.pem")


@pytest.fixture
def drill(shop: Shop, key: Path) -> Drill:
    """The module, with more options."""

    def run(*, check: bool = False, **more: Any) -> ModuleRun:
        return run_module("pg_restore_drill", wanted(shop, key, **more), check=check)

    return run


def is_signed(document: Path, key: Path) -> bool:
    """Whether a script that knows nothing of this collection accepts the evidence."""
    public = key.with_suffix(".pub")
    subprocess.run(["openssl", "pkey", "-in", str(key), "-pubout", "-out", str(public)], check=True)
    return subprocess.run([str(CHECK), str(document), str(public)], check=False, capture_output=True).returncode == 0


@pytest.mark.procedure("D19", "D21", "E6")
def test_a_backup_is_proven_by_a_restore(shop: Shop, drill: Drill, key: Path, tmp_path: Path) -> None:
    """Predicted, made, signed so that others can check it, gone again; young enough, it is not made twice; then it is too old."""
    folder = tmp_path / "evidence"
    predicted = drill(check=True, evidence_dir=str(folder))
    assert not predicted.failed, predicted.msg
    assert predicted.changed
    assert (shop.databases(), folder.exists()) == ([shop.name], False)
    done = drill(evidence_dir=str(folder))
    assert not done.failed, done.msg
    assert done.changed
    assert [step["what"] for step in predicted["plan"]] == [step["what"] for step in done["plan"]]
    assert shop.databases() == [shop.name]
    document = Path(done["drill"]["path"])
    content = json.loads(document.read_text())
    assert content["answer"] == {"has_orders": True, "orders": 500}
    assert (content["backup"], content["rows"], content["proven"]) == (shop.run_id, 800, True)
    assert content["rto_seconds"] >= content["restore_seconds"] > 0
    assert 0 <= content["rpo_seconds"] < 600
    assert content["compared"] == [
        f"backup {shop.run_id}: rows, sequences, large objects, definitions, owners, grants, extensions, settings"
    ]
    assert is_signed(document, key)
    assert not is_signed(document, make_key(tmp_path / "other.pem"))
    assert shop.site.get(done["drill"]["url"].split("/", 3)[3]) == document.read_bytes()
    document.write_text(document.read_text().replace("500", "501"))
    assert not is_signed(document, key)
    for check in (True, False):
        again = drill(check=check)
        assert not again.failed, again.msg
        assert (again.changed, again["due"], again["plan"]) == (False, False, [])
        assert again["last"]["backup"] == shop.run_id
    assert not drill(on_due="fail").failed
    assert drill(on_due="fail", query="SELECT true AS other")["why"].endswith("of a proven drill with this query")
    late = drill(on_due="fail", max_age="0s")
    assert late.failed
    assert "the last proven drill is" in late.msg
    assert "allowed are 0 s" in late.msg


@pytest.mark.procedure("D19", "D21", "E6")
def test_a_weekly_drill_is_made_each_week(shop: Shop, drill: Drill, key: Path) -> None:
    """It ended after the time of day at which the next one begins; who only looks takes it as it is."""
    done = drill()
    assert not done.failed, done.msg
    name = done["drill"]["url"].split("/", 3)[3]
    finished = datetime.now(UTC) - timedelta(days=6, hours=23, minutes=30)
    body = json.dumps(json.loads(shop.site.get(name)) | {"finished_at": stamp(finished)}).encode()
    for part, content in ((name, body), (f"{name}.sig", Signer(str(key)).sign(body))):
        shop.site.client.put_object(Bucket=shop.site.bucket, Key=part, Body=content)
    weekly = drill(check=True)
    assert (weekly.failed, weekly.changed) == (False, True), weekly.msg
    assert "would be 13 d 23 h old at the next run, allowed are 7 d" in weekly["why"]
    for options in ({"on_due": "fail"}, {"interval": "10m"}):
        young = drill(check=True, **options)
        assert (young.failed, young.changed) == (False, False), young.msg


@pytest.mark.procedure("D19", "E6")
def test_evidence_that_anybody_could_have_written_does_not_count(shop: Shop, drill: Drill, tmp_path: Path) -> None:
    """None at all, none that is signed, one that was altered, one of another key: each is said, and the drill is due."""
    missing = drill(on_due="fail")
    assert missing.failed
    assert "there is no evidence of a proven drill" in missing.msg
    done = drill()
    assert not done.failed, done.msg
    name = done["drill"]["url"].split("/", 3)[3]
    body, signature = shop.site.get(name), shop.site.get(f"{name}.sig")

    def put(part: str, content: bytes) -> None:
        shop.site.client.put_object(Bucket=shop.site.bucket, Key=part, Body=content)

    put(name, body.replace(b'"proven": true', b'"proven":  true'))
    assert "its signature is not of this key" in drill(on_due="fail").msg
    put(name, body)
    assert not drill(on_due="fail").failed
    other = wanted(shop, make_key(tmp_path / "new.pem"), on_due="fail")
    assert "its signature is not of this key" in run_module("pg_restore_drill", other).msg
    put(f"{name}.sig", base64.b64encode(signature))
    assert "its signature is not of this key" in drill(on_due="fail").msg
    shop.site.client.delete_object(Bucket=shop.site.bucket, Key=f"{name}.sig")
    assert "it is not signed" in drill(on_due="fail").msg
    # Evidence is no backup, and does not get in the way of one.
    listed = run_module("pg_backup_info", shop.site.s3_params())
    assert [entry["run_id"] for entry in listed["backups"]] == [shop.run_id]
    assert listed["unpublished"] == []


QUERIES = {
    "SELECT count(*) > 500 AS has_orders FROM shop.orders": "not true: has_orders is False",
    "SELECT count(*) FROM shop.orders": "no boolean column",
    "SELECT true AS fine FROM shop.empty": "it returns no row",
    "SELECT true AS fine FROM shop.nosuch": "shop.nosuch",
    "DELETE FROM shop.orders RETURNING true": "only read",
}


@pytest.mark.procedure("D19", "D21")
def test_an_application_that_is_not_content_proves_nothing(shop: Shop, drill: Drill) -> None:
    """Whatever the restore was like; the copy is removed, and there is no evidence. The first and the last, or all of them."""
    for query, words in QUERIES.items() if is_sweep() else [*QUERIES.items()][::4]:
        run = drill(query=query)
        assert run.failed
        assert words in run.msg + str(run["error"])
        assert shop.databases() == [shop.name]
    assert not any(name.endswith((".json", ".sig")) for name in list_evidence(shop))


def list_evidence(shop: Shop) -> list[str]:
    """The keys in the place of evidence; before a drill a note that it has begun, which is none."""
    return [name for name in shop.site.names() if "restore-drills" in name]


@pytest.mark.procedure("D19", "E6")
def test_an_old_backup_proves_nothing(shop: Shop, drill: Drill) -> None:
    """Backups have stopped: that is refused before a row is restored, with the ages."""
    for check in (True, False):
        run = drill(check=check, max_rpo="0s")
        assert run["error"]["refused"] is True
        assert "the newest backup that counts is" in run.msg
        assert "allowed are 0 s" in run.msg
    assert (shop.databases(), list_evidence(shop)) == ([shop.name], [])


def test_who_looks_needs_no_secret(shop: Shop, drill: Drill, tmp_path: Path) -> None:
    """The public key is enough, also that of a key which another one has replaced; one of somebody else is not."""
    done = drill()
    assert not done.failed, done.msg
    public = done["drill"]["public_key"]
    looking = {name: value for name, value in shop.params().items() if name != "query"} | {"on_due": "fail"}
    seen = run_module("pg_restore_drill", {**looking, "public_keys": [public]})
    assert not seen.failed, seen.msg
    assert seen["last"]["backup"] == shop.run_id
    new = wanted(shop, make_key(tmp_path / "new.pem"), public_keys=[public])
    assert run_module("pg_restore_drill", new).changed is False
    other = base64.b64encode(b"x" * 32).decode()
    assert "its signature is not of this key" in run_module("pg_restore_drill", {**looking, "public_keys": [other]}).msg
    for keys, words in (([], "neither it nor public_keys is given"), (["no"], "no Ed25519 public key of 32 bytes")):
        refused = run_module("pg_restore_drill", {**looking, "public_keys": keys})
        assert refused["error"]["refused"] is True
        assert words in refused.msg


def test_evidence_has_its_place_before_a_row_is_restored(shop: Shop, drill: Drill, tmp_path: Path) -> None:
    """A folder that cannot be made is an error at once; a copy of the evidence that is missing is written by the next run."""
    (tmp_path / "file").write_text("")
    for check in (True, False):
        failed = drill(check=check, evidence_dir=str(tmp_path / "file/below"))
        assert failed["error"]["refused"] is True
        assert "option evidence_dir" in failed.msg
        assert "restore_seconds" not in failed.result
    assert shop.databases() == [shop.name]
    done = drill()
    assert not done.failed, done.msg
    folder = tmp_path / "evidence"
    for check in (True, False):
        copied = drill(check=check, evidence_dir=str(folder))
        assert (copied.failed, copied.changed, copied["due"]) == (False, True, False)
        assert folder.exists() != check
    name = done["drill"]["url"].rpartition("/")[2]
    assert (folder / name).read_bytes() == shop.site.get(done["drill"]["url"].split("/", 3)[3])
    assert not drill(evidence_dir=str(folder)).changed


def test_what_keeps_the_copy_takes_nothing_from_its_proof(shop: Shop, drill: Drill, key: Path) -> None:
    """The session is lost before the copy is dropped: that is an error, and the evidence is there all the same."""

    def before(statement: Statement) -> bool:
        return not statement.text.startswith("DROP DATABASE")

    with StatementProxy(shop.server.host, shop.server.port, before) as proxy:
        options = wanted(shop, key, login_host=proxy.host, login_port=proxy.port, ssl_mode="disable")
        run = run_module("pg_restore_drill", options)
    assert run.failed
    assert run["drill"]["copy_removed"] is False
    assert not drill(on_due="fail").failed
    (left,) = [name for name in shop.databases() if name != shop.name]
    for check in (True, False):
        # None is due for days, and the copy has all rows.
        again = drill(check=check)
        assert not again.failed, again.msg
        assert (again.changed, again["removed"], again["due"]) == (True, [left], False)
        assert (left in shop.databases()) is check
    assert not drill().changed


@pytest.mark.procedure("D19")
def test_a_backup_that_cannot_be_restored_is_found_out(shop: Shop, drill: Drill) -> None:
    """Damage on the way, and no backup at all: no evidence, no copy left."""

    def rule(request: Request) -> Fault | None:
        return Fault(flip_at=-30) if request.target.endswith("dump.pgc.zst") else None

    with s3_proxy(shop.site.server["endpoint_url"], rule) as proxy:
        run = drill(endpoint_url=proxy.url)
    assert run.failed
    assert shop.databases() == [shop.name]
    shop.site.clear()
    assert "there is no backup" in drill().msg


@pytest.mark.procedure("D19", "D21")
@pytest.mark.parametrize(
    "point",
    ["CONNECTION LIMIT -1", "COPY shop.lines", "BEGIN TRANSACTION READ ONLY", "DROP DATABASE"]
    if os.environ.get("LOWTIDE_EXHAUSTIVE") == "1"
    else ["BEGIN TRANSACTION READ ONLY"],
)
def test_a_killed_drill_leaves_nothing_for_long(shop: Shop, drill: Drill, key: Path, point: str) -> None:
    """The next one, of a newer backup, removes its copy; the live database was not touched."""
    started: list[subprocess.Popen[str]] = []

    def before(statement: Statement) -> bool:
        if point not in statement.text:
            return True
        os.kill(started[0].pid, signal.SIGKILL)
        return False

    with StatementProxy(shop.server.host, shop.server.port, before) as proxy:
        options = wanted(shop, key, login_host=proxy.host, login_port=proxy.port, ssl_mode="disable")
        started.append(start_module("pg_restore_drill", options))
        out = started[0].communicate(timeout=120)
        assert started[0].returncode == -signal.SIGKILL, out
    shop.wait_left()
    (left,) = [name for name in shop.databases() if name != shop.name]
    newer = shop.back_up()
    done = drill()
    assert not done.failed, done.msg
    assert done["drill"]["backup"] == newer
    assert done["removed"] == [left]
    assert (shop.databases(), shop.count()) == ([shop.name], 500)


def test_a_key_that_cannot_sign_is_refused(shop: Shop, tmp_path: Path) -> None:
    """Before anything is done."""
    rsa, open_key = tmp_path / "rsa.pem", make_key(tmp_path / "open.pem")
    subprocess.run(["openssl", "genpkey", "-algorithm", "rsa", "-out", str(rsa)], check=True, capture_output=True)
    rsa.chmod(0o600)
    open_key.chmod(0o644)
    for path, words in (
        (rsa, "not an Ed25519 key"),
        (open_key, "others may read it"),
        (tmp_path / "no", "cannot be read"),
    ):
        run = run_module("pg_restore_drill", wanted(shop, path))
        assert run["error"]["refused"] is True
        assert words in run.msg
    assert shop.databases() == [shop.name]
