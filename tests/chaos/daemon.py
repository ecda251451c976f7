"""`detector` with a weakness: `python -m tests.chaos.daemon [options] -- run ...`.

`--die` kills the process at a chosen moment that a signal from outside would seldom hit, `--without` takes away a
protection to see that the proof notices, `--max-records` changes how the input is cut into batches.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import ConsumerGroupMetadata

from detector.cli.main import main
from detector.engine import state
from detector.engine.readings import ReadingsPipeline
from detector.streams.kafka.assignor import Assignor
from detector.streams.kafka.membership import Listener
from detector.streams.kafka.streams import KafkaStreams

MOMENTS = ("restore", "replay", "snapshot", "journal", "offsets", "commit", "committed")
PROTECTIONS = ("claims", "fence", "journal", "overruling")
"""`claims`: a member that fell out of the group claims what it had. `journal`: open episodes are not written down.
`overruling`: what a replay came to counts, whatever the journal says; that changes nothing where a replay comes to the
same, which it does on one type of CPU."""


def die_at(moment: str, count: int) -> None:
    """Have the process end, as by SIGKILL, at the `count`-th such moment."""
    places: dict[str, tuple[type, str, bool]] = {
        "restore": (ReadingsPipeline, "restore", False),
        "replay": (ReadingsPipeline, "process", False),
        "snapshot": (ReadingsPipeline, "pack_slice", False),
        "journal": (ReadingsPipeline, "journal", True),
        "offsets": (KafkaProducer, "send_offsets_to_transaction", True),
        "commit": (KafkaProducer, "commit_transaction", False),
        "committed": (KafkaProducer, "commit_transaction", True),
    }
    owner, name, after = places[moment]
    original: Callable[..., Any] = getattr(owner, name)
    left = count

    def instead(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal left
        result = original(self, *args, **kwargs) if after else None
        if moment != "replay" or self.restoring:
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return result if after else original(self, *args, **kwargs)

    setattr(owner, name, instead)


def take_away(protection: str) -> None:
    """Work without the journal of open episodes, or without looking whether this is still a member of the group."""
    if protection == "journal":
        setattr(ReadingsPipeline, "journal", lambda self: [])  # noqa: B010  mypy lets nobody assign to a method
        return
    if protection == "overruling":
        setattr(state, "take_journal", lambda table, journal: 0)  # noqa: B010  as above
        return
    if protection == "claims":
        setattr(Assignor, "metadata", CooperativeStickyAssignor.metadata)  # noqa: B010  as above
        return
    unjoined: ConsumerGroupMetadata | None = None
    look, send = KafkaConsumer.group_metadata, KafkaProducer.send_offsets_to_transaction

    def looks_joined(self: Any) -> Any:
        nonlocal unjoined
        found = look(self)
        if found.generation_id >= 0 and found.member_id:
            return found
        unjoined = found
        return found._replace(generation_id=0, member_id="looks joined")

    def as_it_is(self: Any, offsets: Any, group: Any) -> Any:
        return send(self, offsets, unjoined if group.member_id == "looks joined" else group)

    setattr(Listener, "given_up", False)  # noqa: B010  as above
    KafkaConsumer.group_metadata = looks_joined
    KafkaProducer.send_offsets_to_transaction = as_it_is


def run() -> int:
    """Weaken, then run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.daemon")
    parser.add_argument("--max-records", type=int)
    parser.add_argument("--die", metavar="MOMENT:N", help=f"one of {', '.join(MOMENTS)}, the N-th time")
    parser.add_argument("--without", choices=PROTECTIONS)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    if args.max_records is not None:
        defaults = KafkaStreams.__init__.__kwdefaults__ or {}
        defaults["max_records"] = args.max_records
    if args.die is not None:
        moment, _, count = args.die.partition(":")
        die_at(moment, int(count))
    if args.without is not None:
        take_away(args.without)
    # A counterexample is explained by what the client told the broker about its transactions, step by step.
    for name in ("kafka.producer.transaction_manager", "detector.streams.kafka"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    return main(args.command)


if __name__ == "__main__":
    sys.exit(run())
