#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read consumer groups and topics, and wait for groups to be as wanted."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rpk_group_info
short_description: Read consumer groups, their members, offsets and lag, and wait for a condition
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - Reads consumer groups of Apache Kafka or Redpanda, all of them in one go, and the logs of topics.
  - Can wait, with a deadline, until groups are empty, or have worked off their backlog. Brokers that do not answer
    meanwhile, or are not ready (a coordinator moves, a transaction is about to commit offsets), are asked again until
    then.
  - Without O(names) and O(topics) it only says which cluster it is, in RV(cluster_id).
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.info_module
  - lowtide.ops._attributes.actiongroup_kafka
  - lowtide.ops._kafka
attributes:
  check_mode:
    details:
      - This module only reads. In check mode it does not wait, because what it would wait for has not been done; see
        RV(condition_met).
      - What waiting cannot mend fails in check mode as well, such as a group that does not exist and is to become
        empty.
notes:
  - A consumer that assigns partitions to itself (C(assign), as Apache Flink and Spark do) is no member of the group
    that it commits to. Such a group is V(empty) while it is consumed; see O(wait_for.idle_for).
  - A consumer with a C(group.instance.id) is a static member. It stays in the group after it was stopped, until its
    session ends, C(session.timeout.ms) after its last heartbeat. A wait for V(empty) has to be longer than that.
options:
  names:
    description: Consumer groups to read.
    type: list
    elements: str
    default: []
  topics:
    description: Topics to read the partitions and logs of. They are read last, after the wait.
    type: list
    elements: str
    default: []
  wait_for:
    description:
      - Wait until every group of O(names) meets this. Kafka offers nothing to watch, so it is asked again and again,
        after 0.1 seconds first, then less often, at most every 2 seconds.
    type: dict
    suboptions:
      states:
        description:
          - States of which a group must have one.
          - A group that does not exist is never taken for an empty one; add V(missing) where that is good enough. One that
            the wait has read before, and that was removed since, meets V(empty), as brokers remove a group that has
            committed nothing once its last member has left. RV(groups[].reason) says so.
          - A group of another kind (share or streams group) is V(unknown), and ends the wait.
        type: list
        elements: str
        choices: [missing, dead, empty, stable, rebalancing]
      max_lag:
        description:
          - The lag of all partitions together, with the offsets that the log no longer holds and the group had not
            passed, must not be above this. An unknown lag is.
          - Each transaction ends with a control record, which has an offset and which no consumer gets. A group that
            commits the offset after its last record stays behind the log's end by these. So where the lag is above this,
            and the offset of a partition has not moved since the last look, its log is read from there as
            C(read_committed), up to the first record. A rest without any record counts as 0, one in which a transaction
            is still open as its offsets. Records of aborted transactions are no records.
          - That needs the right READ on the topic and O(client=kafka). Without these, the lag is that of offsets; then
            use the number of partitions for a topic that is written by transactions.
        type: int
      lag_known:
        description:
          - Whether the lag must be known, however large it is. It is unknown when a topic that the group has committed
            to is gone, and then nothing shows what is left to do. A group that has committed nothing has no lag to be
            known. Nor is it known where the group has committed an offset beyond the log's end.
        type: bool
        default: false
      idle_for:
        description:
          - Seconds during which none of the group's offsets may have moved when the wait ends. With V(empty) in
            O(wait_for.states) it finds consumers that commit without being members, if it is longer than the time
            between two of their commits.
        type: float
        default: 0.0
      timeout:
        description: Seconds to wait at most.
        type: float
        default: 300.0
  cleanup_policy:
    description:
      - Whether to read which topics are compacted, of O(topics) and of the groups. Their offsets are not records.
      - It needs the right DESCRIBE_CONFIGS on the topics.
    type: bool
    default: false
  count_records:
    description:
      - Ranges of offsets of which to count the records by reading them from the log, as C(read_committed) and in the
        name of the first group of O(names), without becoming a member. Control records of transactions, records of
        aborted transactions, and those that compaction removed, are not counted.
      - It needs the right READ on the topics and O(client=kafka). It is done last, in check mode too.
    type: list
    elements: dict
    default: []
    suboptions:
      topic:
        description: The topic.
        type: str
        required: true
      partition:
        description: The partition.
        type: int
        required: true
      start:
        description: The first offset of the range.
        type: int
        required: true
      end:
        description: The first offset behind the range.
        type: int
        required: true
  count_timeout:
    description: Seconds that O(count_records) may take.
    type: float
    default: 300.0
seealso:
  - module: lowtide.ops.rpk_group
"""

EXAMPLES = r"""
- name: Wait until the workers have left their group
  lowtide.ops.rpk_group_info:
    brokers: ["redpanda-0.redpanda:9092"]
    names: [feature-workers]
    wait_for:
      states: [empty]
      timeout: 120

- name: Wait until the backlog is worked off, and see how many events there ever were
  lowtide.ops.rpk_group_info:
    brokers: ["redpanda-0.redpanda:9092"]
    names: [feature-workers]
    topics: [feature.events]
    wait_for:
      states: [stable]
      max_lag: 0
  register: bus
"""

RETURN = r"""
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "order-consumer empty, lag 0"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - "consumer group order-consumer empty, lag 0, 12 partitions (cluster b3ZSNdnvSSC2P5vRG8OdWQ)"
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
cluster_id:
  description: The id of the cluster that was reached.
  returned: when it was reached
  type: str
groups:
  description: Each group of O(names) once, as it was read last.
  returned: when they could be read
  type: list
  elements: dict
  contains:
    name:
      description: The group.
      type: str
    state:
      description:
        - V(missing), V(dead) (the coordinator is removing it), V(empty) (offsets, no members), V(stable),
          V(rebalancing), or V(unknown), of which RV(groups[].reason) says why.
      type: str
    reason:
      description: Why the state is V(unknown), or what a V(missing) group was earlier in the wait; null otherwise.
      type: str
    protocol:
      description: V(classic) or V(consumer) (KIP-848), null where that is not known.
      type: str
    assignor:
      description: How its partitions are shared out.
      type: str
    coordinator:
      description: The broker that coordinates it.
      type: str
    member_count:
      description: How many members it has. While they join, C(rpk) does not name them.
      type: int
    members:
      description: Its members, with member_id, client_id, host, instance_id and assignments (topic and partition).
      type: list
      elements: dict
    partitions:
      description:
        - Every partition of each topic that it has committed to or is assigned, with topic, partition, committed (null
          for none), log_start, log_end, lag, lost, beyond_end and member_id.
        - The lag is counted in offsets from the commit, or from the log's start where that is later or there is none.
          It is null where the topic is gone or the commit is beyond the log's end. See O(wait_for.max_lag) for control
          records.
        - lost are offsets that the log no longer holds and the group had not passed. beyond_end is how far the commit is
          beyond the log's end, as after a topic was made anew or a broker lost records.
        - C(rpk) 23.3 prints 0 for no commit while a group has members.
      type: list
      elements: dict
    total_lag:
      description: Sum over its partitions. Null when it has none, or when one of them is null.
      type: int
    compacted_topics:
      description: Which of its topics are compacted.
      returned: with O(cleanup_policy)
      type: list
      elements: str
topics:
  description: Each topic of O(topics) once.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The topic.
      type: str
    exists:
      description: Whether there is such a topic.
      type: bool
    partition_count:
      description: How many partitions it has, null if it does not exist.
      type: int
    partitions:
      description: Its partitions, each with partition, log_start and log_end.
      type: list
      elements: dict
    held:
      description: Offsets that its logs hold.
      type: int
    written:
      description: Offsets that its logs ever gave out.
      type: int
    is_compacted:
      description: Whether it is compacted, null if it does not exist.
      returned: with O(cleanup_policy)
      type: bool
records:
  description: Each range of O(count_records), with topic, partition, start, end and records.
  returned: with O(count_records)
  type: list
  elements: dict
condition_met:
  description: Whether O(wait_for) is met by every group. True without O(wait_for).
  returned: when groups could be read
  type: bool
plan:
  description: Always empty.
  returned: always
  type: list
  elements: dict
blockers:
  description: Always empty.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds that were waited.
  returned: always
  type: float
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._common.module import run_module
from ..module_utils._kafka.connection import connection_spec
from ..module_utils._kafka.reading import report


def main() -> None:
    """Argument checking, and the work."""
    wait_for = {
        "states": {"type": "list", "elements": "str", "choices": ["missing", "dead", "empty", "stable", "rebalancing"]},
        "max_lag": {"type": "int"},
        "lag_known": {"type": "bool", "default": False},
        "idle_for": {"type": "float", "default": 0.0},
        "timeout": {"type": "float", "default": 300.0},
    }
    offset_range = {
        "topic": {"type": "str", "required": True},
        "partition": {"type": "int", "required": True},
        "start": {"type": "int", "required": True},
        "end": {"type": "int", "required": True},
    }
    spec = {
        "names": {"type": "list", "elements": "str", "default": []},
        "topics": {"type": "list", "elements": "str", "default": []},
        "wait_for": {"type": "dict", "options": wait_for},
        "cleanup_policy": {"type": "bool", "default": False},
        "count_records": {"type": "list", "elements": "dict", "options": offset_range, "default": []},
        "count_timeout": {"type": "float", "default": 300.0},
    }
    run_module(AnsibleModule(argument_spec={**connection_spec(), **spec}, supports_check_mode=True), report)


if __name__ == "__main__":
    main()
