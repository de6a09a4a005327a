# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make a topic of one partition and three messages, or remove it: ``topic.py create|delete BROKERS TOPIC``."""

from __future__ import annotations

import sys

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic


def main() -> None:
    """Do what the command line says; a topic that is gone, or there already, is fine."""
    verb, brokers, topic = sys.argv[1:]
    admin = AdminClient({"bootstrap.servers": brokers})
    fine = {"create": KafkaError.TOPIC_ALREADY_EXISTS, "delete": KafkaError.UNKNOWN_TOPIC_OR_PART}[verb]
    futures = admin.create_topics([NewTopic(topic, 1, 1)]) if verb == "create" else admin.delete_topics([topic])
    try:
        futures[topic].result(timeout=30)
    except KafkaException as error:
        if error.args[0].code() != fine:
            raise
    if verb == "create":
        producer, errors = Producer({"bootstrap.servers": brokers}), []
        for number in range(3):
            producer.produce(topic, str(number).encode(), on_delivery=lambda error, _message: errors.append(error))
        if producer.flush(30) or any(errors):
            raise SystemExit(f"messages were not delivered: {errors}")


if __name__ == "__main__":
    main()
