"""Proof by force that no crash changes an alert: `python -m tests.chaos`."""
