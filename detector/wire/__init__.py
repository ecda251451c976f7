"""Bytes to columns and back: readings, frames, alerts, schemas, recordings."""
