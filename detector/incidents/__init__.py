"""Alerts -> incidents: which episodes belong together, and what is said of them. No I/O and no clock."""
