"""One partition: records to messages and state."""
