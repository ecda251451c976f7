"""Work that a copy of this process does, with the memory as it was when it began: a large file is written meanwhile.

The copy shares all memory that nobody changes, so that no second copy of a large state is made. It ends with this
process, and does nothing but its work: no thread of this process is in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import Final

import msgspec

from detector.errors import DetectorError, OperationError, UserError

_DIE_WITH_PARENT: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_KINDS: Final = {kind.__name__: kind for kind in (UserError, OperationError)}


class Aside:
    """One piece of work at a time."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._pid: int | None = None
        self._pipe = -1

    def begin(self, work: Callable[[], None]) -> None:
        """Let a copy of this process do it. Raises OSError where there can be none, and ValueError while one works."""
        if self._pid is not None:
            raise ValueError("the last piece of work is not done")
        self._pipe, told = os.pipe()
        ours = os.getpid()
        try:
            with warnings.catch_warnings():
                # That other threads are not in the copy is what is meant: it uses nothing that they hold.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._pid = os.fork()
        except OSError:
            os.close(self._pipe)
            os.close(told)
            raise
        if self._pid == 0:
            self._work(work, told, ours)
        os.close(told)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, or its end was seen."""
        return self._pid is None

    def done(self, *, wait: bool = False) -> bool:
        """Whether nothing is under way. Raises what the work raised, as DetectorError."""
        if self._pid is None:
            return True
        pid, status = os.waitpid(self._pid, 0 if wait else os.WNOHANG)
        if pid == 0:
            return False
        self._pid = None
        with open(self._pipe, "rb") as pipe:
            said = pipe.read()
        if said:
            kind, what, where, todo = msgspec.json.decode(said, type=tuple[str, str, str | None, str | None])
            raise _KINDS.get(kind, OperationError)(what, where=where, todo=todo)
        if status:
            raise OperationError(
                f"the process that wrote the checkpoint ended with status {os.waitstatus_to_exitcode(status)}",
                todo="Start again: work goes on where it was committed last",
            )
        return True

    def stop(self) -> None:
        """End what is under way, wherever it is."""
        if self._pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._pipe)
        self._pid = None

    def _work(self, work: Callable[[], None], told: int, parent: int) -> None:
        """In the copy. Never returns."""
        status = 1
        try:
            self._library.prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
            signal.set_wakeup_fd(-1)
            for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(one, signal.SIG_IGN)
            if os.getppid() == parent:
                work()
                status = 0
        except DetectorError as error:
            os.write(told, msgspec.json.encode((type(error).__name__, error.what, error.where, error.todo)))
        except BaseException:
            # A pipe takes so much without a reader.
            what = f"the checkpoint could not be written: {traceback.format_exc()[-4000:]}"
            os.write(told, msgspec.json.encode(("", what, None, "Report this, with the log")))
        finally:
            os._exit(status)
