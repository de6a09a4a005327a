# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make a site as inventories/example has it, with objects of its own in the lab, and accounts that may do no more than
the roles' READMEs ask for. Nothing of the demo is used but the worker's image and program."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import Event
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore

from .backups import Site as Store
from .backups import find_primary, make_site, quoted
from .checkout import load_yaml
from .kubernetes_account import (
    ACCOUNT,
    RBAC,
    describe_account,
    read_cluster_entry,
    read_rules,
    request_token,
    write_kubeconfig,
)
from .kubernetes_server import ApiServer
from .local_servers import wait_until
from .modules import CHECKOUT
from .playbooks import write_yaml
from .postgresql_rights import Superuser, grant_documented_rights

EXAMPLE = Path("inventories/example")
PASSWORD = "canary-1c9f3b70"  # noqa: S105 - of roles that live for one test
PARTITIONS = 3
CONSUMER = "order-consumer"
WINDOW_SITE = "small"
Json = dict[str, Any]

# What docs/kubernetes-rights.yml lists, and nothing else.
RULES = read_rules("Role", "lowtide")
IDENTITY_RULES = read_rules("ClusterRole", "lowtide-identity")


class Cluster:
    """Looks at a namespace of the lab's cluster by kubectl."""

    def __init__(self, facts: Json, namespace: str) -> None:
        self.facts, self.namespace = facts, namespace

    def kubectl(self, *arguments: str, stdin: Json | None = None) -> str:
        """Return the output of kubectl as the cluster's administrator."""
        command = [self.facts["kubectl"], "--kubeconfig", self.facts["kubeconfig"], "-n", self.namespace, *arguments]
        given = None if stdin is None else json.dumps(stdin)
        done = subprocess.run(command, input=given, check=False, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def apply(self, *objects: Json) -> None:
        """Create or change objects."""
        self.kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": list(objects)})

    def read_workloads(self) -> dict[str, Json]:
        """Return each workload by name: replicas asked for and ready, our annotations, and its version."""
        items = json.loads(self.kubectl("get", "statefulsets,deployments", "-o", "json"))["items"]
        return {
            item["metadata"]["name"]: {
                "replicas": item["spec"]["replicas"],
                "ready": item["status"].get("readyReplicas", 0),
                "notes": [key for key in item["metadata"].get("annotations", {}) if "lowtide" in key],
                "version": item["metadata"]["resourceVersion"],
            }
            for item in items
        }

    def read_serving(self) -> dict[str, int]:
        """Return the replicas of each workload that are all ready and on which nothing of ours is noted."""
        return {
            name: item["replicas"]
            for name, item in self.read_workloads().items()
            if item["replicas"] == item["ready"] and item["notes"] == []
        }

    def wait_ready(self) -> None:
        """Wait until every workload serves."""
        for resource in json.loads(self.kubectl("get", "statefulsets,deployments", "-o", "json"))["items"]:
            target = f"{resource['kind']}/{resource['metadata']['name']}"
            self.kubectl("rollout", "status", target, "--timeout=300s")


def describe_role(rules: list[Json]) -> Json:
    """Return what the restricted account may do in its namespace."""
    return {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": ACCOUNT}, "rules": rules}


def describe_role_without_patch_of(name: str, names: Iterable[str]) -> Json:
    """Return the same, but of the workloads ``names`` it may not change ``name``."""
    workloads, *others = RULES
    reading = {**workloads, "verbs": [verb for verb in workloads["verbs"] if verb != "patch"]}
    changing = {**workloads, "verbs": ["patch"], "resourceNames": [other for other in names if other != name]}
    return describe_role([reading, changing, *others])


def describe_workload(kind: str, name: str, container: Json, replicas: int) -> Json:
    """Return a workload of one container a pod."""
    body: Json = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 5, "containers": [{"name": "main", **container}]},
        },
    }
    if kind == "StatefulSet":
        body |= {"serviceName": name, "podManagementPolicy": "Parallel"}
    else:
        body["template"]["spec"]["terminationGracePeriodSeconds"] = 0
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": body}


@contextmanager
def make_cluster(lab: Json, name: str) -> Iterator[Cluster]:
    """Make a namespace and an account in it that may do what the READMEs list; both are removed."""
    cluster = Cluster(lab["kubernetes"], name)
    account = [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": name}]
    cluster.kubectl("create", "namespace", name)
    try:
        cluster.apply(
            *describe_account(name, RULES),
            {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": IDENTITY_RULES},
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": name},
                "subjects": account,
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
            },
        )
        yield cluster
    finally:
        cluster.kubectl("delete", "clusterrolebinding,clusterrole", name, "--ignore-not-found")
        try:
            # In the foreground, so that the consumers have left their group when this returns.
            cluster.kubectl("delete", "statefulsets", "--all", "--cascade=foreground", "--timeout=300s")
        finally:
            cluster.kubectl("delete", "namespace", name, "--wait=false")


@contextmanager
def make_topic(lab: Json, name: str) -> Iterator[str]:
    """Make a topic; it and a group of the same name are removed."""
    admin = AdminClient({"bootstrap.servers": lab["kafka"]["bootstrap_servers"]})
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result()
    try:
        yield name
    finally:
        admin.delete_topics([name])[name].result()
        remove_group(admin, name)


def remove_group(admin: AdminClient, name: str) -> None:
    """Delete a group as soon as the last member has left it; it may not be there."""
    deadline = time.monotonic() + 120
    while True:
        try:
            admin.delete_consumer_groups([name])[name].result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return
            if error.args[0].code() != KafkaError.NON_EMPTY_GROUP or time.monotonic() > deadline:
                raise
            admin.poll(0.2)
        else:
            return


@contextmanager
def make_store(lab: Json, unique_name: Callable[..., str]) -> Iterator[tuple[Store, str, str]]:
    """Make a database with its owner, a restricted account, a table with dead rows, and a bucket; all are removed."""
    owner, account = unique_name("owner", separator="_"), unique_name("operator", separator="_")
    administration = Store(lab, find_primary(lab["postgresql"]), "postgres", "", None, {})
    schema = (CHECKOUT / "tests/lab/app/schema.sql").read_text(encoding="utf-8").replace("%", "%%")
    seed = f"""
        ALTER SCHEMA public OWNER TO {owner};
        SET ROLE {owner};
        {schema}
        CREATE TABLE invoices (id int PRIMARY KEY, note text) WITH (autovacuum_enabled = false);
        INSERT INTO invoices SELECT number, 'x' FROM generate_series(1, %(rows)s) number;
        RESET ROLE;
    """
    try:
        administration.sql(f"CREATE ROLE {owner} LOGIN PASSWORD '{PASSWORD}'")
        administration.sql(f"CREATE ROLE {account} LOGIN PASSWORD '{PASSWORD}'")
        with make_site(lab, "versitygw", unique_name, rows=30_000, seed=seed) as store:
            store.sql(f"REVOKE ALL ON DATABASE {quoted(store.database)} FROM PUBLIC")
            store.sql(f"GRANT CONNECT ON DATABASE {quoted(store.database)} TO {owner}")
            facts = lab["postgresql"]
            superuser = Superuser(store.primary, facts["port"], facts["superuser"], facts["passfile"])
            grant_documented_rights(
                superuser, store.database, owner=owner, maintenance=account, backup=account, monitor=account
            )
            store.sql("VACUUM ANALYZE invoices")
            yield store, owner, account
    finally:
        administration.sql(f"DROP ROLE IF EXISTS {account}, {owner}")


@dataclass(frozen=True)
class SmallSite:
    """Holds the site's systems, its two files, and where its windows keep their journals."""

    cluster: Cluster
    store: Store
    variables: Json
    hosts: Json
    folder: Path
    objects: list[Json]

    @property
    def arguments(self) -> tuple[str, str]:
        """Return what a user gives to ansible-playbook."""
        return ("-i", str(self.folder / "inventory"))

    def write(self) -> None:
        """Write the inventory's two files."""
        (self.folder / "inventory/group_vars").mkdir(parents=True, exist_ok=True)
        write_yaml(self.folder / "inventory/hosts.yml", self.hosts)
        write_yaml(self.folder / "inventory/group_vars/all.yml", self.variables)

    def make_dead_rows(self) -> None:
        """Leave a third of the table as dead rows, and wait until they are counted; autovacuum is off there.

        A session hands in its statistics when it ends, after its client has gone.
        """
        before = self.count_dead_rows()
        self.store.sql("UPDATE invoices SET note = 'y' WHERE id % 3 = 0")
        wait_until("dead rows counted", lambda: self.count_dead_rows() > before, 60)

    def count_dead_rows(self) -> int:
        """Return how many rows of the table count as dead."""
        rows = self.store.sql("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'invoices'")
        return int(rows[0][0])

    def count_vacuums(self) -> int:
        """Return how often the table was vacuumed by command."""
        rows = self.store.sql("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'invoices'")
        return int(rows[0][0])

    def read_state(self) -> Json:
        """Return everything that a window may change."""
        return {
            "workloads": self.cluster.read_workloads(),
            "vacuums": self.count_vacuums(),
            "keys": self.store.names(),
            "windows": sorted(str(path) for path in (self.folder / "windows").rglob("*")),
        }

    def read_events(self) -> list[Event]:
        """Return all events of the site's journals, oldest first."""
        store = FileStore(self.folder / "windows" / WINDOW_SITE)
        events = [event for name in store.list_occurrences() for event in store.load(name)]
        return sorted(events, key=lambda event: event.at)

    def read_report(self) -> Json:
        """Return the newest report."""
        paths = (self.folder / "windows" / WINDOW_SITE / "reports").glob("*.json")
        newest = max(paths, key=lambda path: path.stat().st_mtime_ns)
        report: Json = json.loads(newest.read_text(encoding="utf-8"))
        return report


def make_connection(cluster: Cluster, path: Path) -> Json:
    """Write a kubeconfig of the restricted account, and return the connection."""
    facts = cluster.facts
    token = request_token(ApiServer(facts), cluster.namespace)
    write_kubeconfig(path, read_cluster_entry(facts), {"token": token})
    return {"kubeconfig": str(path), "context": "lab", "cluster_uid": facts["cluster_uid"]}


def derive_variables(lab: Json, cluster: Cluster, store: Store, account: str, folder: Path) -> Json:
    """Return the example's variables with this site's values, without what the lab has no use for (passwords, TLS)."""
    postgresql, s3 = lab["postgresql"], store.server
    passfile = folder / "pgpass"
    passfile.write_text(f"*:*:*:{account}:{PASSWORD}\n", encoding="utf-8")
    passfile.chmod(0o600)
    values = {
        "kubernetes_connection": make_connection(cluster, folder / "kubeconfig"),
        "kafka_connection": {
            "brokers": [lab["kafka"]["bootstrap_servers"]],
            "cluster_id": lab["kafka"]["cluster_id"],
        },
        "postgresql_connection": {
            "login_host": ",".join(postgresql["hosts"]),
            "login_port": postgresql["port"],
            "login_user": account,
            "login_db": store.database,
            "passfile": str(passfile),
            "system_identifier": postgresql["system_identifier"],
        },
        "s3_connection": {key: s3[key] for key in ("endpoint_url", "region", "credentials_file", "profile")},
        "kubernetes_namespace": cluster.namespace,
        "bucket": store.bucket,
        "window_dir": str(folder / "windows"),
        "window_site": WINDOW_SITE,
    }
    example: Json = load_yaml(EXAMPLE / "group_vars/all.yml")
    for name, value in values.items():
        if isinstance(value, dict):
            assert value.keys() <= example[name].keys(), name
        example[name] = value
    return example


def describe_objects(lab: Json, tiers: list[list[Json]], container: Json | None) -> Iterator[Json]:
    """Yield the workloads of the site; its StatefulSets run ``container``, and its Deployments do nothing."""
    idle = {"image": lab["kubernetes"]["images"][0], "command": ["sleep", "100000"]}
    for entry in (entry for tier in tiers for entry in tier):
        stateful = entry["kind"] == "StatefulSet"
        yield describe_workload(entry["kind"], entry["name"], (container or idle) if stateful else idle, 1 + stateful)


def describe_consumer(lab: Json, topic: str, database: str, owner: str) -> Json:
    """Return the container of the demo's worker, on a topic, a group and a database of its own."""
    postgresql = lab["postgresql"]
    environment = {
        "FEATURE_BROKERS": lab["kafka"]["bootstrap_servers"],
        "FEATURE_TOPIC": topic,
        "FEATURE_GROUP": topic,
        "PGHOST": ",".join(postgresql["hosts"]),
        "PGPORT": str(postgresql["port"]),
        "PGTARGETSESSIONATTRS": "read-write",
        "PGDATABASE": database,
        "PGUSER": owner,
        "PGPASSWORD": PASSWORD,
        "PGAPPNAME": topic,
    }
    return {
        "image": lab["feature_service"]["images"][0],
        "command": ["/usr/bin/python3.11", "/app/worker.py"],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 5},
    }


def produce(lab: Json, topic: str) -> None:
    """Put events of the demo's kind into the topic."""
    command = [*lab["feature_service"]["producer"], "--topic", topic, "--count", "300", "--rate", "1000"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)


@contextmanager
def make_small_site(lab: Json, unique_name: Callable[..., str], folder: Path) -> Iterator[SmallSite]:
    """Make the site of inventories/example: two Deployments, a consumer in a StatefulSet, a database, a bucket."""
    with ExitStack() as stack:
        topic = stack.enter_context(make_topic(lab, unique_name("orders")))
        store, owner, account = stack.enter_context(make_store(lab, unique_name))
        cluster = stack.enter_context(make_cluster(lab, unique_name("shop")))
        variables = derive_variables(lab, cluster, store, account, folder)
        variables |= {"topics": [topic], "consumer_groups": [topic]}
        hosts = load_yaml(EXAMPLE / "hosts.yml")
        consumer = describe_consumer(lab, topic, store.database, owner)
        site = SmallSite(
            cluster, store, variables, hosts, folder, [*describe_objects(lab, variables["tiers"], consumer)]
        )
        site.write()
        cluster.apply(*site.objects)
        cluster.wait_ready()
        produce(lab, topic)
        yield site


@contextmanager
def make_tiered_site(lab: Json, unique_name: Callable[..., str], folder: Path, *, tiers: int) -> Iterator[SmallSite]:
    """Make a site without Kafka: each tier is a host of its own (``tier_1`` starts first) with a Deployment."""
    with ExitStack() as stack:
        store, _owner, account = stack.enter_context(make_store(lab, unique_name))
        cluster = stack.enter_context(make_cluster(lab, unique_name("tiers")))
        variables = derive_variables(lab, cluster, store, account, folder)
        for name in ("kafka_connection", "topics", "consumer_groups"):
            del variables[name]
        variables["tiers"] = [[{"kind": "Deployment", "name": f"app-{number}"}] for number in range(1, tiers + 1)]
        names = [f"tier_{number}" for number in range(1, tiers + 1)]
        hosts = load_yaml(EXAMPLE / "hosts.yml")
        hosts["all"]["children"]["workloads"]["hosts"] = {
            name: {"tiers": [tier]} for name, tier in zip(names, variables["tiers"], strict=True)
        }
        (shutdown,) = [step for step in variables["window_steps"] if step["name"] == "shutdown"]
        del shutdown["hosts"]
        shutdown["batches"] = [[name] for name in reversed(names)]
        site = SmallSite(cluster, store, variables, hosts, folder, [*describe_objects(lab, variables["tiers"], None)])
        site.write()
        cluster.apply(*site.objects)
        cluster.wait_ready()
        yield site
