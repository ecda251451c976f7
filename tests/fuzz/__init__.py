"""Inputs that nobody thought of: made at random, the same ones every time."""
