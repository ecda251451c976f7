"""How fast and how large: `python -m benchmarks.speed`; on a real broker `python -m benchmarks.speed.kafka`."""
