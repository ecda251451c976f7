"""The Kafka backend: exactly once from input offsets to alerts, with state in a compacted topic."""
