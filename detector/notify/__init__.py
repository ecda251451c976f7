"""Incidents -> people: what a target is told, when, and how it is sent."""
