#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a consumer group's offsets where they are declared to be."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rpk_group
short_description: Put a consumer group's offsets where they are declared to be
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - Sets the committed offsets of a consumer group, on Apache Kafka or Redpanda. Before anything is changed it is known,
    and reported, what each partition moves from and to, and how many records that skips or repeats.
  - A group with members is refused, by the names of its members. Brokers refuse such a change too, but C(rpk group
    seek) exits 0 then.
  - Offsets beyond what a log holds are brought to its start or end, which RV(partitions) says.
  - All partitions are changed by one commit, and then each is read back. Where that finds another offset than the
    declared one, the module fails and says of each partition where it is. Where reading back fails too, it says that
    what the commit did is not known, and it is reported as changed.
  - Records are counted by offsets, which is at most the number of records, because compaction and transactions leave
    holes.
  - An offset that a transaction is about to commit is waited for, as long as O(request_timeout).
  - A group of another kind (share or streams group) is refused.
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.actiongroup_kafka
  - lowtide.ops._kafka
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
    details:
      - O(offsets[].shift) counts from the offsets that O(undo_file) holds once it is written, so that a repeated run
        does not shift again.
      - "V(end) is where the log ends at the time of the run: while somebody produces, each run has another one."
options:
  name:
    description: The consumer group.
    type: str
    required: true
  offsets:
    description:
      - Where partitions should stand. Later elements override earlier ones for the same partition.
      - Partitions that no element covers keep their offsets.
    type: list
    elements: dict
    suboptions:
      topic:
        description:
          - The topic. Left out, every topic that the group has offsets for is meant;
            with O(offsets[].from_group) every topic of that other group.
        type: str
      partitions:
        description: Partitions of O(offsets[].topic). Left out, all of them.
        type: list
        elements: int
      to:
        description:
          - V(start) or V(end) of the log, or a time, for the first record that is not older. A time is RFC 3339 with
            its zone, as V(2026-01-31T02:00:00Z), or milliseconds since 1970. Where no record is that new, it is the end
            of the log.
        type: str
      offset:
        description: This offset.
        type: int
      from_group:
        description: The offsets of this other group. Partitions for which it has none are left alone.
        type: str
      shift:
        description:
          - The group's own offset plus this number. A negative number repeats records. Partitions without an offset are
            left alone.
        type: int
  restore_file:
    description: Put back the offsets from before a change. The file is the O(undo_file) of that change.
    type: path
  undo_file:
    description:
      - Where to write the offsets before the change, as JSON, readable by its owner only. It is on disk before the
        first change.
      - A file that holds the undo of anything else is never overwritten but refused.
        One of the same change, interrupted, is kept and completed.
      - Not written when there is nothing to change, nor in check mode.
    type: path
    required: true
  max_skipped:
    description: How many records the change may skip in all. With more it is refused.
    type: int
    default: 0
  create:
    description: Whether a group that does not exist is created by setting its offsets. Otherwise it is refused.
    type: bool
    default: false
seealso:
  - module: lowtide.ops.rpk_group_info
"""

EXAMPLES = r"""
- name: Skip the backlog
  lowtide.ops.rpk_group:
    brokers: ["redpanda-0.redpanda:9092"]
    cluster_id: b3ZSNdnvSSC2P5vRG8OdWQ
    name: feature-workers
    offsets:
      - to: end
    max_skipped: 20000
    undo_file: /var/lib/ops/2026-11-21-feature-workers.json

- name: Process again what came since two o'clock, but one partition from an exact offset
  lowtide.ops.rpk_group:
    brokers: ["redpanda-0.redpanda:9092"]
    name: feature-workers
    offsets:
      - topic: feature.events
        to: "2026-11-21T02:00:00Z"
      - topic: feature.events
        partitions: [3]
        offset: 418
    undo_file: /var/lib/ops/2026-11-21-replay.json

- name: Put back what the last task changed, by the rpk of a pod
  lowtide.ops.rpk_group:
    client: rpk
    rpk_pod:
      namespace: feature-system
      name: redpanda-0
      container: redpanda
    name: feature-workers
    restore_file: /var/lib/ops/2026-11-21-replay.json
    max_skipped: 20000
    undo_file: /var/lib/ops/2026-11-21-replay-undone.json
"""

RETURN = r"""
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "set 12 offsets of order-consumer: skips 340 records, repeats 0"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - "the offsets before are in /var/lib/ops/undo.json"
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
cluster_id:
  description: The id of the cluster that was reached.
  returned: when it was reached
  type: str
group:
  description: The group.
  returned: when it was read
  type: str
state:
  description: What the group was found to be, as in M(lowtide.ops.rpk_group_info).
  returned: when it was read
  type: str
  sample: empty
partitions:
  description: Every partition that is declared, with what was (RV(partitions[].before)) and will be (RV(partitions[].after)).
  returned: when the plan could be made
  type: list
  elements: dict
  contains:
    topic:
      description: The topic.
      type: str
    partition:
      description: The partition.
      type: int
    before:
      description: The committed offset before, null for none.
      type: int
    after:
      description: The offset that is declared, within the log.
      type: int
    log_start:
      description: The first offset that the log holds.
      type: int
    log_end:
      description: The offset that the next record will get.
      type: int
    skipped:
      description: Offsets which the group will never see. Without a commit before, all that the log holds below the new one.
      type: int
    repeated:
      description: Offsets which the group will see again.
      type: int
    note:
      description: Where the declared offset is not in the log, what it was and what was taken.
      type: str
    actual:
      description:
        - The offset that was read back, when the change was not fully done. Null when there is none, or it could not be
          read back, as RV(partitions[].error) then says.
      type: int
    error:
      description: Why this partition was not changed, or why that is not known, when the change was not fully done.
      type: str
skipped:
  description: Sum over the partitions that change.
  returned: when the plan could be made
  type: int
repeated:
  description: Sum over the partitions that change.
  returned: when the plan could be made
  type: int
undo_file:
  description: Where the offsets before the change are, null when there is nothing to change.
  returned: when the group was read
  type: str
plan:
  description: What is to change, one element a topic.
  returned: always
  type: list
  elements: dict
blockers:
  description: The group's members, when they stand in the way.
  returned: always
  type: list
  elements: dict
waited:
  description: Always 0.
  returned: always
  type: float
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._common.module import run_module
from ..module_utils._kafka.connection import connection_spec
from ..module_utils._kafka.group import set_offsets


def main() -> None:
    """Argument checking, and the work."""
    one_target = ("to", "offset", "from_group", "shift")
    declaration = {
        "topic": {"type": "str"},
        "partitions": {"type": "list", "elements": "int"},
        "to": {"type": "str"},
        "offset": {"type": "int"},
        "from_group": {"type": "str"},
        "shift": {"type": "int"},
    }
    spec = {
        "name": {"type": "str", "required": True},
        "offsets": {
            "type": "list",
            "elements": "dict",
            "options": declaration,
            "required_one_of": [one_target],
            "mutually_exclusive": [one_target],
            "required_by": {"partitions": ["topic"], "offset": ["topic"]},
        },
        "restore_file": {"type": "path"},
        "undo_file": {"type": "path", "required": True},
        "max_skipped": {"type": "int", "default": 0},
        "create": {"type": "bool", "default": False},
    }
    module = AnsibleModule(
        argument_spec={**connection_spec(), **spec},
        required_one_of=[("offsets", "restore_file")],
        mutually_exclusive=[("offsets", "restore_file")],
        supports_check_mode=True,
    )
    run_module(module, set_offsets)


if __name__ == "__main__":
    main()
