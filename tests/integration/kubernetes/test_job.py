# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_job against a real cluster: a CronJob's Job, a probe, a migration of the lab's database, what fails and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.kubernetes_account import AuditLog, expand, name_user, read_rules
from support.modules import finish_module, start_module

from .conftest import Namespace
from .job_steps import JOB, UNTIL_GO, Migrations, describe_shell, is_running, list_names, run, share_folder, tell

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]


@pytest.fixture
def migrations(namespace: Namespace, lab: Json, unique_name: Callable[..., str]) -> Iterator[Migrations]:
    """A table of the test's own in the feature service's database."""
    table = unique_name("migrations", separator="_")
    made = Migrations(namespace, lab["feature_service"], table, abs(hash(table)) % 2**31)
    with made.connect() as cursor:
        cursor.execute(f"CREATE TABLE {table} (version integer PRIMARY KEY)")
    yield made
    with made.connect() as cursor:
        cursor.execute(f"DROP TABLE {table}")


@pytest.mark.procedure("A16")
def test_a_cron_job_is_run_now_and_its_log_is_kept(namespace: Namespace, tmp_path: Path) -> None:
    """Under a name of its own, so that a second run is no AlreadyExists; it ends by itself and is cleaned up."""
    template = {"metadata": {"labels": {"team": "a"}}, "spec": describe_shell(namespace, "echo 12 artifacts removed")}
    template["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    namespace.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "cleanup"},
            "spec": {"schedule": "0 0 1 1 *", "suspend": True, "concurrencyPolicy": "Forbid", "jobTemplate": template},
        }
    )
    path = tmp_path / "cleanup.log"
    params: Json = {"from_cronjob": "cleanup", "name_prefix": None, "log_file": str(path), "deadline": 120}
    predicted = run(namespace, check=True, **params)
    assert (predicted.changed, list_names(namespace)) == (True, [])
    first = run(namespace, **params)
    assert not first.failed, first.msg
    assert (first.changed, first["plan"], first["diff"]) == (True, predicted["plan"], predicted["diff"])
    assert (first["succeeded"], first["exit_code"], first["log"]) == (1, 0, "12 artifacts removed")
    assert path.read_text(encoding="utf-8").endswith("<==\n12 artifacts removed\n")
    job = namespace.get("Job", first["job"])
    assert job["metadata"]["labels"]["team"] == "a"
    assert job["metadata"]["ownerReferences"][0]["name"] == "cleanup"
    assert (job["spec"]["activeDeadlineSeconds"], job["spec"]["ttlSecondsAfterFinished"]) == (120, 86400)
    again = run(namespace, **params)
    assert (again.changed, again["log"]) == (False, first["log"])
    second = run(namespace, **{**params, "key": "l"})
    assert (second.failed, second.changed, len(list_names(namespace))) == (False, True, 2)


@pytest.mark.procedure("A16")
def test_a_failed_job_is_not_waited_for(namespace: Namespace) -> None:
    """The wait ends with Failed as with Complete, at once, with exit code and last line."""
    failed = run(namespace, template=describe_shell(namespace, "echo disk full; exit 3"))
    assert failed.failed
    assert failed["waited"] < 150
    assert (failed["exit_code"], failed["log"]) == (3, "disk full")
    assert "ended with exit code 3; its last line: disk full" in failed.msg
    assert "Job has reached the specified backoff limit" in failed.msg
    again = run(namespace, template=describe_shell(namespace, "echo disk full; exit 3"))
    assert (again.failed, again["error"]["refused"], again["log"]) == (True, True, "disk full")
    mended = run(namespace, template=describe_shell(namespace, "echo fine"), on_failed="again")
    assert (mended.failed, mended["log"]) == (False, "fine")
    assert run(namespace, template=describe_shell(namespace, "echo fine")).changed is False


@pytest.mark.procedure("A16")
def test_a_job_ends_by_itself(namespace: Namespace) -> None:
    """At its deadline, which is named; its pod is deleted then, and its log has been read before."""
    template = describe_shell(namespace, "echo row 17; sleep 1000")
    template["template"]["spec"]["terminationGracePeriodSeconds"] = 5
    failed = run(namespace, template=template, deadline=15)
    assert failed.failed
    assert "Job was active longer than specified deadline" in failed.msg
    assert "its last line: row 17" in failed.msg
    again = run(namespace, template=template, deadline=15)
    assert again.failed
    assert "no pod of it is left" in " ".join(again["evidence"])


@pytest.mark.parametrize(
    ("script", "timeout", "words"),
    [
        ("echo migrated", 300, "its work may be done: main of Pod "),
        ("sleep 100", 300, ""),
        ("sleep 100", 4, "its pod has several containers (main, shipper) and was deleted with it"),
    ],
)
def test_work_that_may_be_done_is_not_repeated(namespace: Namespace, script: str, timeout: int, words: str) -> None:
    """Kubernetes fails a Job at its deadline whose other container goes on, and deletes the pod, which shows it."""
    template = describe_shell(namespace, script)
    pod = template["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = 3
    pod["containers"].append({**pod["containers"][0], "name": "shipper", "command": ["sleep", "100"]})
    params: Json = {"template": template, "deadline": 16}
    first = run(namespace, **params, timeout=timeout)
    assert first.failed
    name = first["job"]

    def has_failed() -> bool:
        conditions = namespace.get("Job", name).get("status", {}).get("conditions", [])
        return any((entry["type"], entry.get("reason")) == ("Failed", "DeadlineExceeded") for entry in conditions)

    namespace.wait("its failure", has_failed)
    namespace.wait("no pod", lambda: not namespace.list("Pod"))
    again = run(namespace, **params, on_failed="again", timeout=8)
    assert again.failed
    if not words:
        assert again["job"] != name, "a run has seen that nothing had ended with 0"
        return
    assert again["error"]["refused"] is True
    assert words in again.msg
    assert list_names(namespace) == [name]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": "localhost/no-such-image:1", "imagePullPolicy": "Never"}, "ErrImageNeverPull"),
        ({"envFrom": [{"secretRef": {"name": "no-such-secret"}}]}, "CreateContainerConfigError"),
        ({"resources": {"requests": {"cpu": "1000"}}}, "Unschedulable"),
    ],
)
def test_what_never_mends_is_named(namespace: Namespace, change: Json, reason: str) -> None:
    """Long before the Job's own deadline."""
    template = describe_shell(namespace, "true")
    template["template"]["spec"]["containers"][0] |= change
    failed = run(namespace, template=template, failure_grace_factor=0.01)
    assert failed.failed
    assert failed["waited"] < 150
    assert reason in failed.msg
    assert failed["blockers"][0]["what"].startswith(reason)


def test_pods_that_a_quota_forbids_are_named(namespace: Namespace) -> None:
    """No pod ever says so: the Job's events do."""
    namespace.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}
    )
    failed = run(namespace, template=describe_shell(namespace, "true"), failure_grace_factor=0.01)
    assert failed.failed
    assert "QuotaExceeded" in failed.msg
    assert "exceeded quota: q" in failed.msg


def test_an_unknown_field_is_refused(namespace: Namespace) -> None:
    """The server would drop it, and the Job would run without what was meant."""
    template = describe_shell(namespace, "true", backofLimit=0)
    refused = run(namespace, template=template)
    assert refused.failed
    assert "backofLimit" in refused.msg
    assert list_names(namespace) == []


@pytest.mark.procedure("A3", "B4")
def test_a_probe_has_the_workload_s_account_and_secret(namespace: Namespace) -> None:
    """The token is in no argument, in no object but its Secret, and in nothing that the module says."""
    token = "ghp_" + "q7Zk" * 9
    namespace.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "git"}, "stringData": {"token": token}},
    )
    script = """
        test -s /run/git/token && echo token has $(wc -c < /run/git/token) bytes
        grep -c "$(cat /run/git/token)" /proc/1/cmdline
        echo Authorization: Bearer $(cat /run/git/token)
        test "$ACCOUNT" = builder && echo account $ACCOUNT
    """
    workload = namespace.workload("builder", kind="Deployment", replicas=0)
    pod = workload["spec"]["template"]["spec"]
    pod |= {"serviceAccountName": "builder", "volumes": [{"name": "git", "secret": {"secretName": "git"}}]}
    account = {"name": "ACCOUNT", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}}
    pod["containers"][0] |= {"env": [account], "volumeMounts": [{"name": "git", "mountPath": "/run/git"}]}
    namespace.apply(workload)
    like = {"kind": "Deployment", "name": "builder", "command": ["sh", "-c", script]}
    probed = run(namespace, from_workload=like, name_prefix="probe")
    assert not probed.failed, probed.msg
    told = probed["log"].splitlines()
    assert told == ["token has 40 bytes", "0", "Authorization: [redacted]", "account builder"]
    assert token not in tell(probed)
    assert token not in str(namespace.get("Job", probed["job"])) + str(namespace.list("Pod"))


@pytest.mark.lab("feature_service")
@pytest.mark.procedure("B26", "B4")
def test_a_migration_runs_once_for_its_release(namespace: Namespace, migrations: Migrations) -> None:
    """In the workload's image, with its secret, before what needs it; its log is the evidence."""
    params: Json = {"name_prefix": "migrate", "key": "schema-1", "lock": "schema", "template": migrations.describe()}
    done = run(namespace, **params)
    assert not done.failed, done.msg
    assert done["log"] == "schema version 0\nschema version 1"
    assert run(namespace, **params).changed is False
    assert migrations.read_versions() == [1]
    assert migrations.password not in tell(done)
    wrong = run(namespace, **{**params, "key": "schema-2", "template": migrations.describe(script=SCRIPT_THAT_FAILS)})
    assert wrong.failed
    assert "its last line: psycopg2.errors.UndefinedColumn" in wrong.msg or "UndefinedColumn" in wrong["log"]
    assert migrations.read_versions() == [1]


SCRIPT_THAT_FAILS = """
import os, psycopg2
psycopg2.connect("").cursor().execute("SELECT nothing FROM " + os.environ["TABLE"])
"""


def test_the_documented_rights_are_enough_and_all_used(
    namespace: Namespace, connect: Callable[..., Json], tmp_path: Path
) -> None:
    """With a lock that another Job has, a slow Job, and the CronJob's template."""
    rules = read_rules("Role", "lowtide-job")
    audit = AuditLog(namespace.facts)
    account = connect(rules)
    shared = tmp_path / "shared"
    # What explains a delay is looked for after five seconds.
    script = f"sleep 7; {UNTIL_GO}; echo done"
    job: Json = {"template": share_folder(namespace, describe_shell(namespace, script), shared)}
    job["template"]["template"]["spec"]["restartPolicy"] = "Never"
    namespace.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "slow"},
            "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job["template"]}},
        }
    )
    params = namespace.params(from_cronjob="slow", key="a", lock="schema", timeout=300, **account)
    process = start_module(JOB, params)
    namespace.wait("it runs", lambda: any(is_running(namespace, name) for name in list_names(namespace)))
    held = run(namespace, **job, key="b", lock="schema", lock_timeout=1, **account)
    assert "the lock schema is held after 1 s by Job" in held.msg
    (shared / "go").touch()
    done = finish_module(process)
    assert (done.failed, done["log"]) == (False, "done"), done.msg
    for kind in ("Deployment", "StatefulSet"):
        namespace.apply(namespace.workload("w", kind=kind, replicas=0))
        like = {"kind": kind, "name": "w", "command": ["true"]}
        predicted = run(namespace, check=True, key="c", from_workload=like, **account)
        assert (predicted.failed, predicted.changed) == (False, True), predicted.msg
    used = audit.wait_for_rights(name_user(namespace.name), expand(rules))
    assert used - expand(rules) == set(), "used, and not documented"
    assert expand(rules) - used == set(), "documented, and not used"
