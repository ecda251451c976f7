"""Several loops on threads of their own: the first that fails ends them all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

_LOOK_SECONDS: Final = 0.2
"""A signal is dealt with between two waits of the main thread."""


class Crew:
    """Starts loops that look at `stop` of this object; `asked` says that someone wants them to end.

    `on_failure` is called, once, when one of them raises.
    """

    def __init__(self, asked: Callable[[], bool], on_failure: Callable[[], None] = lambda: None) -> None:
        self._asked = asked
        self._on_failure = on_failure
        self._dismissed = False
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def stop(self) -> bool:
        """Whether the loops have to end."""
        return self._dismissed or self._asked()

    def start(self, name: str, loop: Callable[[], None]) -> None:
        """Begin a loop."""
        thread = threading.Thread(target=self._run, args=(loop,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def dismiss(self) -> None:
        """They have to end."""
        self._dismissed = True

    def join(self) -> None:
        """Wait for all of them. Raises what the first one that failed has raised."""
        for thread in self._threads:
            while thread.is_alive():
                thread.join(_LOOK_SECONDS)
        if self._errors:
            raise self._errors[0]

    def _run(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            self._errors.append(error)
            self._dismissed = True
            self._on_failure()
