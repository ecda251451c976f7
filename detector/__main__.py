"""What `detector` and `python -m detector` start with: nothing is imported before a daemon holds SIGHUP back.

By default SIGHUP ends a process, and a daemon needs a good part of a second until it listens for it. What comes
meanwhile waits, and is a reload once it does.
"""

import signal
import sys


def main() -> int:
    """Run the command that was asked for and return its exit status."""
    if "run" in sys.argv[1:]:  # or a word of another command, which then lets go of it
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    from detector.cli.main import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
