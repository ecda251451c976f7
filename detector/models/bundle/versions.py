"""Which of the bundle versions in a directory is active, and which was before."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from detector.errors import TRANSIENT, OperationError, UserError

CURRENT: Final = "current"
NEWEST: Final = "newest"
"""Stands for the version that was written last, for jobs that cannot know its name."""
HISTORY: Final = "current.history"

_VERSION: Final = re.compile(r"\d{8}T\d{6}Z-(?P<name>.+)-[0-9a-f]{6}")


def list_versions(directory: Path) -> list[str]:
    """The versions in `directory`, oldest first; empty where there is no such directory."""
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return []
    return sorted(entry.name for entry in entries if _VERSION.fullmatch(entry.name) and entry.is_dir())


def active_version(directory: Path) -> str | None:
    """The version `current` names, which need not be there any more; None where nothing was activated."""
    path = directory / CURRENT
    try:
        name = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise UserError("this is a file, not a directory of models", where=str(directory), todo="Correct it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read which model is active: {error}", where=str(path), todo="Correct it") from None
    if not name or "/" in name or name.startswith("."):
        raise UserError(
            f"{name[:60]!r} names no model version",
            where=str(path),
            todo=f"Run `detector models activate VERSION --dir {directory}`",
        )
    return name


def resolve(directory: Path, wanted: str) -> str:
    """The version that is, starts with or is named (`train --name`) `wanted`, or the newest one for `newest`.

    Raises UserError unless there is one.
    """
    versions = list_versions(directory)
    if wanted == NEWEST and versions:
        return versions[-1]
    if wanted in versions:
        return wanted
    found = [version for version in versions if version.startswith(wanted) or name_of(version) == wanted]
    if len(found) == 1:
        return found[0]
    todo = f"`detector models list --dir {directory}` shows them"
    if found:
        raise UserError(f"{wanted} may be any of {', '.join(found)}", where=str(directory), todo=f"Name one; {todo}")
    raise UserError(f"there is no model version {wanted}", where=str(directory), todo=todo)


def activate(directory: Path, wanted: str) -> str:
    """Make a version the active one and return its full name. Raises UserError as `resolve` does."""
    version = resolve(directory, wanted)
    with as_user_error(directory):
        before = active_version(directory)
        if before == version:
            return version
        # History first: a crash between the two writes leaves the active version noted twice, which `rollback` skips.
        if before is not None:
            _replace(directory / HISTORY, [*_history(directory), before])
        _replace(directory / CURRENT, [version])
    return version


def rollback(directory: Path) -> str:
    """Make the version active before the current one active again and return its name; a second call goes further back.

    Raises UserError if there is none or it was deleted.
    """
    with as_user_error(directory):
        history = _history(directory)
        now = active_version(directory)
        while history and history[-1] == now:
            history.pop()
        if not history:
            raise UserError(
                "no other model version was active before", where=str(directory), todo="Activate one by its name"
            )
        version = history.pop()
        if not (directory / version).is_dir():
            raise UserError(
                f"the model version active before, {version}, is not there any more",
                where=str(directory),
                todo=f"Run `detector models activate VERSION --dir {directory}`",
            )
        _replace(directory / CURRENT, [version])
        _replace(directory / HISTORY, history)
    return version


def check_writable(directory: Path) -> None:
    """Make the directory if need be and try to write into it, before hours are spent on what is to go there.

    Raises UserError or OperationError.
    """
    with as_user_error(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass


@contextlib.contextmanager
def as_user_error(directory: Path) -> Iterator[None]:
    """Turn a failure to write into `directory` into one line: a person's to mend, or the disk's (OperationError)."""
    try:
        yield
    except OSError as error:
        kind = OperationError if error.errno in TRANSIENT else UserError
        raise kind(
            f"cannot write here: {error.strerror}",
            where=str(directory),
            todo="Make room or mend the disk" if kind is OperationError else "Name a directory that can be written",
        ) from None


def flush_directory(directory: Path) -> None:
    """Make renames within `directory` last through a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def name_of(version: str) -> str:
    """The part between the time and the digest; empty where there is none."""
    match = _VERSION.fullmatch(version)
    return match["name"] if match else ""


def _history(directory: Path) -> list[str]:
    try:
        return (directory / HISTORY).read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise UserError(
            f"cannot read which models were active before: {error}",
            where=str(directory / HISTORY),
            todo="Delete it: nothing but `rollback` needs it",
        ) from None


def _replace(path: Path, lines: Sequence[str]) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    flush_directory(path.parent)
