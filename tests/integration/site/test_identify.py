# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook identify on real systems: right, wrong and missing identities, systems that are down, no rights."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.playbooks import PlaybookRun, write_yaml

pytestmark = pytest.mark.lab("kubernetes", "kafka", "postgresql", "s3")
Identify = Callable[[dict[str, dict[str, Any]]], PlaybookRun]


@pytest.fixture
def identify(ansible_playbook: Callable[..., PlaybookRun], tmp_path: Path) -> Identify:
    """Run the playbook on these hosts."""

    def run(hosts: dict[str, dict[str, Any]]) -> PlaybookRun:
        local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        inventory = write_yaml(tmp_path / "hosts.yml", {"all": {"vars": local, "hosts": hosts}})
        return ansible_playbook(
            "lowtide.ops.identify", "-i", str(inventory), env={"ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"}
        )

    return run


@pytest.fixture
def site(lab: dict[str, Any]) -> dict[str, Any]:
    """The connections of a site, without identities."""
    postgresql, s3 = lab["postgresql"], lab["s3"]
    return {
        "kubernetes_connection": {"kubeconfig": lab["kubernetes"]["kubeconfig"]},
        "kafka_connection": {"brokers": [lab["kafka"]["bootstrap_servers"]]},
        "postgresql_connection": {
            "login_host": ",".join(postgresql["hosts"]),
            "login_db": "postgres",
            "passfile": postgresql["passfile"],
        },
        "s3_connection": {"endpoint_url": s3["endpoint_url"], "credentials_file": s3["credentials_file"]},
        "bucket": s3["bucket"],
    }


@pytest.fixture
def restricted(lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[dict[str, Any]]:
    """A connection whose account may do nothing in the cluster."""
    facts, namespace = lab["kubernetes"], unique_name("identify")
    kubectl = [facts["kubectl"], "--kubeconfig", facts["kubeconfig"]]

    def call(*arguments: str) -> str:
        return subprocess.run([*kubectl, *arguments], check=True, capture_output=True, text=True, timeout=300).stdout

    call("create", "namespace", namespace)
    call("-n", namespace, "create", "serviceaccount", "nobody")
    token = call("-n", namespace, "create", "token", "nobody").strip()
    yield {"host": facts["server"], "api_key": token, "validate_certs": False}
    call("delete", "namespace", namespace, "--wait=false")


def test_a_site_is_identified_in_one_block(site: dict[str, Any], lab: dict[str, Any], identify: Identify) -> None:
    """With the connections alone; for two hosts that share them there is one block."""
    run = identify({"a": site, "b": site})
    assert run.rc == 0, run.stdout
    assert run.changed == 0
    assert "hosts: all 2 hosts" in run.stdout
    for words in (
        f"cluster_uid: {lab['kubernetes']['cluster_uid']}",
        f"cluster_id: {lab['kafka']['cluster_id']}",
        f"system_identifier: '{lab['postgresql']['system_identifier']}'",
        "S3 has no identity",
    ):
        assert run.stdout.count(words) == 1, run.stdout


def test_what_fails_is_told_and_hides_nothing(
    site: dict[str, Any], lab: dict[str, Any], restricted: dict[str, Any], identify: Identify
) -> None:
    """A wrong identity, an account without rights, a broker that is down, a wrong password, no such bucket."""
    wrong = {**site["postgresql_connection"], "passfile": None, "login_password": "guessed-canary"}
    run = identify(
        {
            "good": {**site, "kafka_connection": {**site["kafka_connection"], "cluster_id": "declared-wrong"}},
            "bad": {
                "kubernetes_connection": restricted,
                "kafka_connection": {"brokers": ["10.77.0.1:9"]},
                "postgresql_connection": {key: value for key, value in wrong.items() if value},
                "s3_connection": site["s3_connection"],
                "bucket": "lowtide-bakups",
            },
            "broken": {"kafka_connection": {"brokers": ["{{ nosuch }}"]}},
        }
    )
    assert run.rc == 2
    assert f"cluster_uid: {lab['kubernetes']['cluster_uid']}" in run.stdout
    assert f"system_identifier: '{lab['postgresql']['system_identifier']}'" in run.stdout
    told = " ".join(run.stdout.split())
    for words in (
        "kafka_connection.cluster_id of good is declared-wrong in the inventory",
        "5 of the declared systems could not be identified",
        "kafka_connection of broken: 'nosuch' is undefined",
        "Grant this account the verb get on the namespace kube-system",
        "kafka_connection of bad: event bus 10.77.0.1:9: no broker answers",
        "the server refused the password",
        "bucket lowtide-bakups",
    ):
        assert words in told, run.stdout
    assert "guessed-canary" not in run.stdout + run.stderr
    assert restricted["api_key"] not in run.stdout + run.stderr


def test_a_host_that_cannot_be_reached_hides_nothing(
    site: dict[str, Any], lab: dict[str, Any], identify: Identify
) -> None:
    """The first host of the play and one between others, behind ssh on a port where nobody listens."""
    other = {**site["postgresql_connection"], "login_db": "template1"}
    ssh = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9, "ansible_ssh_timeout": 3}
    first = {**ssh, "kafka_connection": {"brokers": ["far:9092"]}}
    away = {**ssh, "postgresql_connection": site["postgresql_connection"]}
    here = {**{key: site[key] for key in ("kubernetes_connection", "kafka_connection", "s3_connection", "bucket")}}
    run = identify({"first": first, "away": away, "near": {"postgresql_connection": other}, "here": here})
    assert run.rc == 2, run.stdout
    told = " ".join(run.stdout.split())
    for words in (
        f"cluster_uid: {lab['kubernetes']['cluster_uid']}",
        f"cluster_id: {lab['kafka']['cluster_id']}",
        f"system_identifier: '{lab['postgresql']['system_identifier']}'",
        "Bucket lowtide-backups can be listed with these credentials",
        "2 of the declared systems could not be identified",
        "kafka_connection of first: host first, which is to ask it, cannot be reached: ",
        "postgresql_connection of away: host away, which is to ask it, cannot be reached: ",
        "Connection refused",
    ):
        assert words in told, run.stdout
