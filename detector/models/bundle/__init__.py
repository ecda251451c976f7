"""Bundles on disk: what is in one, its versions, and whether it fits."""
