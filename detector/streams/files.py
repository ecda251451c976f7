"""What the directory backend asks of the operating system, with its failures as sentences."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from detector.errors import DetectorError, OperationError, UserError

_FOR_A_PERSON = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST}
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def failure(doing: str, path: Path, error: OSError) -> DetectorError:
    """The error to raise for `error`: `UserError` where rights or the kind of a file are wrong, else operation."""
    what = f"cannot {doing}: {os.strerror(error.errno) if error.errno else error}"
    if error.errno in _FOR_A_PERSON:
        return UserError(what, where=str(path), todo="Give the detector that right, or another path")
    todo = "Make room and start again" if error.errno in _FULL else "Mend this and start again"
    return OperationError(what, where=str(path), todo=f"{todo}: work goes on where it was committed last")


@contextlib.contextmanager
def failing_as(doing: str, path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into the error of `failure`."""
    try:
        yield
    except OSError as error:
        raise failure(doing, path, error) from error


def legible(name: str) -> str:
    """The name of a file as text that can be stored: bytes of it that are no UTF-8 are written as `\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write everything, however often the system takes only a part. Raises `OSError`."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(directory: Path) -> None:
    """Make names that were created or renamed in `directory` durable. Raises `OSError`."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(directory: Path) -> None:
    """Create `directory` and its parents. Raises `UserError` where it may not be written."""
    with failing_as("write to the directory", directory):
        if not directory.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            sync_directory(directory.parent)


def size_of_regular(path: Path) -> int | None:
    """Bytes of a regular file, None if there is none. Raises `UserError` for anything that is no regular file."""
    with failing_as("look at the file", path):
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise UserError(f"this is {kind}", where=str(path), todo="Name a file, or - for standard input or output")
    return status.st_size


def refuse_link(path: Path) -> None:
    """Raise `UserError` if `path` is a symbolic link: who may write to the directory could have any file written to."""
    with failing_as("look at the file", path):
        link = path.is_symlink()
    if link:
        raise UserError(
            "this is a symbolic link, which is not written through",
            where=str(path),
            todo="Remove it, or name its target",
        )


def open_anew(path: Path, mode: int = 0o644) -> int:
    """Open a new file for writing and reading, in place of what a killed process left; returns its descriptor.

    Raises `UserError` where a symbolic link stands, and `OSError`.
    """
    refuse_link(path)
    path.unlink(missing_ok=True)  # what it is a hard link to stays
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


class DirectoryLock:
    """Keeps a second process away from a directory, by a lock that ends with the process. Holds its process id."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd: int | None = None

    def acquire(self) -> None:
        """Raises `OperationError` naming the process that holds the lock, `UserError` if the directory is read-only."""
        path = self._directory / "lock"
        refuse_link(path)
        size_of_regular(path)
        with failing_as("write to the directory", self._directory):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            with failing_as("lock the directory", self._directory):
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
                    raise OperationError(
                        f"another detector works here, process {holder}",
                        where=str(self._directory),
                        todo="Stop it first, or give this one another place",
                    ) from None
                os.ftruncate(fd, 0)
                write_all(fd, f"{os.getpid()}\n".encode())
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Let go; nothing if not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
