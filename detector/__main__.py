"""What `detector` and `python -m detector` start with: a daemon minds signals before anything large is imported.

By default SIGHUP and SIGTERM end a process with an error, and a daemon needs a good part of a second until it listens
for them. A SIGHUP that comes meanwhile waits, and is a reload then. SIGTERM and SIGINT end the process at once, and
well: it has opened nothing yet. What comes before the first line below is beyond a program's reach.
"""

import os
import signal
import sys
from types import FrameType

from detector.cli.command import DAEMONS, find_command


def main() -> int:
    """Run the command that was asked for and return its exit status."""
    if find_command(sys.argv[1:]) in DAEMONS:
        signal.signal(signal.SIGTERM, _stop)
        signal.signal(signal.SIGINT, _stop)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        from detector.cli.main import main as command
    except KeyboardInterrupt:
        return 130

    return command()


def _stop(number: int, frame: FrameType | None) -> None:
    # An exception could be lost in what is being imported.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
