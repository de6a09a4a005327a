#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module lowtide.ops.s3_expiry."""

from __future__ import annotations

DOCUMENTATION = r"""
module: s3_expiry
short_description: Remove objects of a bucket that are due by age, tag or metadata, within limits
version_added: 0.1.0
author: The lowtide.ops team (@lowtide-ops)
description:
  - Lists what is below a prefix, judges each object by the rules, and removes those that are due. In check mode, and before
    anything is removed, RV(expired) is the list of exactly these.
  - If more is due than O(max_objects), O(max_bytes) or O(max_share) allow, all of it is refused and nothing is removed.
  - A location in which M(lowtide.ops.pg_backup), another module of backups or pgBackRest has put any is refused.
    An age does not know whether a later backup was ever verified; O(lowtide.ops.pg_backup#module:keep) does.
  - Only the object that was listed is removed. One that was written anew after the listing stays, see O(condition).
  - Ages are judged by the S3 server's clock. Keys are taken as they are, byte by byte, whatever is in them.
  - Every object that the server did not remove is in RV(not_removed) with the server's reason, is not counted as removed, and fails
    the module at its end. Killed in the middle, run it again.
  - A lifecycle rule of the bucket does the same for ages and tags without a limit, and not for metadata. Use that one where
    nobody has to see the list before.
options:
  bucket:
    description: The bucket.
    type: str
    required: true
  prefix:
    description:
      - What keys begin with, as it is; a folder ends with a slash. Empty means the whole bucket, which has to be said.
    type: str
    required: true
  older_than:
    description:
      - How old an object has to be, as a whole number with a unit V(s), V(m), V(h), V(d) or V(w). V(0) means any.
      - A version that is not current counts from when it was superseded.
    type: str
  tags:
    description: Tags that an object has to have, all of them, each with this value.
    type: dict
    default: {}
  metadata:
    description: Metadata (without C(x-amz-meta-)) that an object has to have, all of it, each with this value.
    type: dict
    default: {}
  expiry_tag:
    description:
      - Name of a tag with the moment from which on an object is due. That is a number of seconds (10 digits) or
        milliseconds (13) since the epoch, or ISO 8601 with an offset, such as V(2026-11-27T00:00:00Z), and not before the
        year 2000. V(20271231) and V(0) are none.
      - An object without it stays. So does one whose value is no such moment, with a line in RV(blockers).
    type: str
  expiry_metadata:
    description: The same for an entry of the metadata, such as V(expires_at).
    type: str
  keep:
    description:
      - How many of the newest objects of each series below O(prefix) stay whatever the other rules say. So the last exports of
        one stay also when they have stopped, whatever is newer of another.
    type: int
    default: 0
  series:
    description:
      - What of a key tells one series from another, as a regular expression that is searched in the whole key. Its groups are
        that, or all that it matches where it has none, so V(^) makes all objects below O(prefix) one series, and
        V(^daily/(.+\)/2[0-9]{3}/) one of each folder above those of a year.
      - By default objects are of one series that are in the same folder and whose names differ only in the day and the time at which
        they were written, such as V(daily/shop-20261127.dump), V(shop-2026-11-27_02-00-05.dump), V(shop-20261127T0200.dump) or
        V(shop-20261127020005.dump). What else is a number may be a tenant's, such as V(0200) in V(shop-20261127-0200.dump), a
        month, seconds since the epoch, or a day more than a week from the one on which it was written. Where that keeps too
        much, a line of RV(blockers) says so, and V(^(.+\)[-_][0-9]{8}[-_][0-9]{4}) is what to give.
      - An object whose key it does not match is a series of its own, and so stays where O(keep) is not V(0).
    type: str
  versions:
    description:
      - V(current) removes objects. In a bucket with versions that sets delete markers, below which everything stays. Where
        versioning is not known to be C(Enabled) a marker has the id V(null), so an object stays that lies over an older version of
        that id, with a line in RV(blockers).
      - V(all) removes the versions themselves for good, those that are not current included, each judged by itself, and the
        delete markers that nothing is left behind. A current version is removed only if all older ones of its key go, too,
        since one of them would come back otherwise. In a bucket without versions it is the same as V(current).
      - While versioning is not C(Enabled), a version or marker with the id V(null) that is not the current object stays, with a
        line in RV(blockers), since the next write takes that id.
    type: str
    choices: [current, all]
    default: current
  condition:
    description:
      - What keeps an object that is replaced between the listing and its removal, in a bucket that has no versions or has
        them suspended. Elsewhere it is kept in any case, by its version or below a delete marker.
      - V(etag) removes an object only if it still has the ETag that was listed. A server that looks at ETags in
        C(DeleteObjects), such as AWS, removes 1,000 by a request. Other servers are asked for each object (C(If-Match)), as
        versitygw 1.7. One that ignores this, too, is noticed and left alone.
      - V(none) removes 1,000 by a request whatever the server. It is for buckets in which no key is ever written twice.
    type: str
    choices: [etag, none]
    default: etag
  max_objects:
    description: How many objects, versions and delete markers may go at most in a run.
    type: int
    default: 1000
  max_bytes:
    description: How much may go at most in a run, as a number of bytes or with a unit V(KiB), V(MiB), V(GiB) or V(TiB).
    type: str
  max_share:
    description: The share in percent of the objects below O(prefix), and of their bytes, that may go at most in a run.
    type: int
    default: 50
  timeout:
    description: Seconds after which no further request is begun. What is left then is a failure that the next run goes on from.
    type: int
    default: 3600
notes:
  - N objects of which M go take at most N/1000 + M/1000 + 2 requests, each quotient rounded up. Each rule on tags, and those on metadata,
    take one more for each object that O(older_than) and O(keep) let go. So does O(condition=etag) for each that goes, and two, on a
    server that does not look at ETags in C(DeleteObjects). With O(versions=all), keys of several versions take up to two more.
  - The rights are in C(docs/s3-policy-expiry.json).
seealso:
  - module: lowtide.ops.pg_backup
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.actiongroup_s3
  - lowtide.ops._s3
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - The keys of what is due, before and after.
  idempotent:
    support: partial
    details:
      - Objects become due with time.
"""

EXAMPLES = r"""
- name: Artifacts whose time is over go, a tenth of them at most
  lowtide.ops.s3_expiry:
    bucket: feature-artifacts
    prefix: ""
    expiry_metadata: expires_at
    older_than: 1d
    max_objects: 5000
    max_share: 10

- name: Exports older than a month go, and the ten newest of each series stay
  lowtide.ops.s3_expiry:
    bucket: shop-exports
    prefix: daily/
    older_than: 30d
    keep: 10
    max_bytes: 200GiB

- name: Of each shop's exports, in folders of the day, the newest three stay
  lowtide.ops.s3_expiry:
    bucket: shop-exports
    prefix: byday/
    older_than: 14d
    keep: 3
    series: "([^/]+)\\.csv$"
"""

RETURN = r"""
summary:
  description:
    - One line that says what was removed, would be in check mode, or that nothing is due.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "removed 12 of 12 expired objects (3.4 MiB) below s3://feature-artifacts/"
evidence:
  description: Short lines that prove the summary, one for each of the first twenty objects.
  returned: always
  type: list
  elements: str
  sample: ["'builds/a b.tar' (1.2 MiB): metadata expires_at=1764201600"]
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
location:
  description: What was listed.
  returned: when the bucket could be read
  type: str
  sample: s3://feature-artifacts/
versioning:
  description: C(Enabled), C(Suspended) or C(None); C(Unknown) where these credentials may not ask for it.
  returned: when the bucket could be read
  type: str
  sample: Enabled
listed:
  description: How many objects are there, with C(bytes). With O(versions=all) these are versions and delete markers.
  returned: when the bucket could be read
  type: dict
  sample: {objects: 40, bytes: 3565158}
expired:
  description: Everything that is due, each with C(key), C(version_id), C(size), C(modified), C(etag), C(delete_marker) and C(why).
  returned: when the bucket could be read
  type: list
  elements: dict
kept:
  description: The keys that stay because of O(keep).
  returned: when the bucket could be read
  type: list
  elements: str
series:
  description: How many objects there are of each series; empty without O(keep).
  returned: when the bucket could be read
  type: dict
  sample: {"daily/shop-#.dump": 12}
removed:
  description: The keys of what was removed, with the version where one was named.
  returned: when the bucket could be read
  type: list
  elements: str
replaced:
  description: The keys of what was written anew after the listing, and stays.
  returned: when the bucket could be read
  type: list
  elements: str
not_removed:
  description: What is due and was not removed, each with C(key), C(version_id), and the server's C(code) and C(message).
  returned: when the bucket could be read
  type: list
  elements: dict
plan:
  description: One item if anything is due, with the number of objects and their size.
  returned: always
  type: list
  elements: dict
blockers:
  description: Objects that stay, with why and what to do, since their expiry cannot be read, they were replaced, or their series is short or
    may be one with another.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds waited; always 0 here.
  returned: always
  type: float
error:
  description: The parts of the message (C(object), C(problem), C(next_step)), and whether nothing was changed (C(refused)).
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._expiry.entry import EXPIRY_SPEC, expire_objects
from ansible_collections.lowtide.ops.plugins.module_utils._s3.connection import ARGUMENT_SPEC, REQUIRED_TOGETHER


def main() -> None:
    """Wire options to work."""
    module = AnsibleModule(
        argument_spec={**ARGUMENT_SPEC, **EXPIRY_SPEC},
        required_together=REQUIRED_TOGETHER,
        supports_check_mode=True,
    )
    run_module(module, expire_objects)


if __name__ == "__main__":
    main()
