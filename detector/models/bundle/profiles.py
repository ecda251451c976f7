"""Profiles in a bundle: how their file is read."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from detector.errors import UserError, in_brief

Loaded = TypeVar("Loaded")


def read_profiles(path: Path, load: Callable[[Path], Loaded]) -> Loaded:
    """What `load` makes of the file of profiles. Raises UserError for anything that is wrong with it."""
    try:
        with zipfile.ZipFile(path):  # numpy leaves the file open where this fails
            pass
        return load(path)
    except Exception as error:
        # What zipfile, zlib, struct, ast and numpy raise of a broken archive has no other base in common.
        raise UserError(
            f"cannot read the profiles: {in_brief(error)}", where=str(path), todo="Train the model again"
        ) from None
