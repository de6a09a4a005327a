# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print as JSON what the broker says of a consumer group: its state, and which members hold how many partitions.

group.py --brokers HOST:PORT --group NAME
"""

from __future__ import annotations

import argparse
import json

from confluent_kafka.admin import AdminClient

SECONDS = 60.0


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Describe a consumer group.")
    for name in ("--brokers", "--group"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    admin = AdminClient({"bootstrap.servers": options.brokers})
    found = admin.describe_consumer_groups([options.group], request_timeout=SECONDS)[options.group].result()
    members = {member.member_id: len(member.assignment.topic_partitions) for member in found.members}
    print(json.dumps({"state": found.state.name, "members": members}))


if __name__ == "__main__":
    main()
