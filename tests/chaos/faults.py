"""What is done to the group, one fault after another."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from tests.chaos.daemon import MOMENTS
from tests.chaos.members import Ended, Member
from tests.kafka.broker import Broker, dies_with_us

MEMBERS = 3
SESSION_SECONDS = 6.0
_DYING_SECONDS = 12.0
"""How long a process waits for its moment; then the fault is a plain kill."""
_STARTING_SECONDS = 20.0
_FORGETTING_SECONDS = 2 * SESSION_SECONDS + 8
_LOOK_SECONDS = 0.1


@dataclass
class Field:
    """The group, its broker, and what there is to say about them in the end.

    `change_settings` writes other settings, told their number, into the configuration of all members. `forget_offsets`
    has the broker forget what the group has committed, if it would; in `busy` the processors have other things to do.
    `followers` are the members of `detector incidents`, of which one works and the other stands by, and of
    `detector rekey`, which share the partitions.
    `unexpected`: processes that ended though nobody ended them. `failed_stops`: that did not stop cleanly.
    """

    broker: Broker
    members: list[Member]
    new_member: Callable[[str], Member]
    rng: random.Random
    change_settings: Callable[[int], None]
    forget_offsets: Callable[[], bool] = lambda: True
    busy: Callable[[], AbstractContextManager[None]] = nullcontext
    followers: list[Member] = field(default_factory=list)
    sleep: Callable[[float], None] = time.sleep
    unexpected: list[Ended] = field(default_factory=list)
    failed_stops: list[Ended] = field(default_factory=list)
    joined: int = 0
    reloads: int = 0

    def options(self) -> list[str]:
        """Another way to cut the input into batches for every process."""
        return ["--max-records", str(self.rng.choice((50, 333, 1000, 5000)))]

    def start(self, member: Member, *options: str) -> None:
        """Start a process in a member's place."""
        member.start(*self.options(), *options)

    def some(self) -> Member:
        """A member of the first three."""
        return self.rng.choice(self.members[:MEMBERS])

    def revive(self) -> None:
        """Whoever ended by itself is noted and started again."""
        self.revive_some([*self.members, *self.followers])

    def revive_some(self, members: Sequence[Member]) -> None:
        """The same, of some."""
        for member in members:
            if not member.running:
                ended = member.ended()
                if ended is not None:
                    self.unexpected.append(ended)
                self.start(member)

    def stop(self, member: Member) -> None:
        """A clean stop, or a note that it was none."""
        # SIGTERM itself ends a process that is too young to have its own way of stopping.
        if member.stop() not in (0, -signal.SIGTERM) and (ended := member.ended()) is not None:
            self.failed_stops.append(ended)

    def until_listening(self, member: Member) -> bool:
        """Wait for a process to handle signals its own way; False if that takes too long."""
        for _ in range(round(_STARTING_SECONDS / _LOOK_SECONDS)):
            if member.listening:
                return True
            self.sleep(_LOOK_SECONDS)
        return False

    def pause(self, least: float, most: float) -> None:
        """Let things happen for a while."""
        self.sleep(self.rng.uniform(least, most))


def kill(place: Field) -> None:
    """SIGKILL and an immediate restart under the same name."""
    member = place.some()
    member.kill()
    place.start(member)


def kill_and_leave(place: Field) -> None:
    """SIGKILL; the others take over before it comes back."""
    member = place.some()
    member.kill()
    place.pause(SESSION_SECONDS, SESSION_SECONDS + 6)
    place.start(member)


def freeze(place: Field) -> None:
    """SIGSTOP until the group has given up the member, then SIGCONT: a zombie."""
    member = place.some()
    member.pause()
    place.pause(SESSION_SECONDS + 1, SESSION_SECONDS + 4)
    member.resume()


def freeze_rejoining(place: Field) -> None:
    """SIGSTOP past the session while the group forms again: the client then does not tell that it was given up."""
    newcomer, member = place.rng.sample(place.members[:MEMBERS], 2)
    newcomer.kill()
    place.start(newcomer)
    place.until_listening(newcomer)
    place.pause(0.0, 2.0)  # from its first request to join to the end of the rebalance
    member.pause()
    place.pause(SESSION_SECONDS + 1, SESSION_SECONDS + 4)
    member.resume()


def freeze_briefly(place: Field) -> None:
    """SIGSTOP within the session timeout."""
    member = place.some()
    member.pause()
    place.pause(0.5, SESSION_SECONDS - 2)
    member.resume()


def restart(place: Field) -> None:
    """A clean stop and a start."""
    member = place.some()
    place.stop(member)
    place.start(member)


def join_or_leave(place: Field) -> None:
    """A fourth member comes, or goes."""
    if len(place.members) == MEMBERS:
        place.joined += 1
        member = place.new_member(f"guest-{place.joined}")
        place.members.append(member)
        place.start(member)
    else:
        member = place.members.pop()
        if place.rng.random() < 0.5:
            place.stop(member)
        else:
            member.kill()


def kill_while_stopping(place: Field) -> None:
    """SIGTERM, and SIGKILL into the last snapshot and commit."""
    member = place.some()
    member.terminate()
    place.pause(0.0, 0.4)
    member.kill()
    place.start(member)


def kill_in_the_act(place: Field) -> None:
    """A process that dies at a chosen moment: in a restore, a snapshot, between offsets and commit."""
    member = place.some()
    member.kill()
    moment = place.rng.choice(MOMENTS)
    count = place.rng.randint(1, 3) if moment in ("restore", "replay") else place.rng.randint(1, 40)
    place.start(member, "--die", f"{moment}:{count}")
    member.wait(_DYING_SECONDS)
    place.start(member)


def kill_while_starting(place: Field) -> None:
    """SIGKILL, a start, and SIGKILL again somewhere between joining and the end of the restore."""
    member = place.some()
    member.kill()
    place.start(member)
    place.pause(0.8, 4.0)
    member.kill()
    place.start(member)


def reload(place: Field) -> None:
    """Other settings take effect in one member, and mostly it dies soon after that; the others get them as they start.

    What they change concerns no sensor that there is, so the alerts have to be the same.
    """
    place.reloads += 1
    place.change_settings(place.reloads)
    member = place.some()
    if place.until_listening(member):
        member.reload()
    place.pause(0.5, 2.5)
    if place.rng.random() < 0.7:
        member.kill()
        place.start(member)


def forget(place: Field) -> None:
    """SIGKILL of all members, and the broker forgets what they have committed."""
    for member in place.members:
        member.kill()
    for _ in range(round(_FORGETTING_SECONDS / _LOOK_SECONDS)):
        if place.forget_offsets():
            break
        place.sleep(_LOOK_SECONDS)  # until their sessions are over
    for member in place.members:
        place.start(member)


def hog(place: Field) -> None:
    """Busy processes beside another fault."""
    name = place.rng.choice([name for name, fault in FAULTS.items() if fault is not hog])
    with place.busy():
        FAULTS[name](place)
        place.pause(1.0, 4.0)


def kill_follower(place: Field) -> None:
    """SIGKILL of a member of `detector incidents` or `rekey`, and an immediate restart under the same name."""
    member = place.rng.choice(place.followers)
    member.kill()
    place.start(member)


def freeze_follower(place: Field) -> None:
    """SIGSTOP of one until another has taken over, then SIGCONT: a zombie."""
    member = place.rng.choice(place.followers)
    member.pause()
    place.pause(SESSION_SECONDS + 1, SESSION_SECONDS + 4)
    member.resume()


def kill_broker(place: Field) -> None:
    """SIGKILL of the broker."""
    place.broker.kill()
    place.pause(0.0, 2.0)
    place.broker.start()


def freeze_broker(place: Field) -> None:
    """The broker hangs: connections stay, answers do not come."""
    place.broker.pause()
    place.pause(1.0, 7.0)
    place.broker.resume()


@contextmanager
def hogs() -> Iterator[None]:
    """Twice as many busy processes as there are processors."""
    command = [*dies_with_us(), sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


FAULTS: dict[str, Callable[[Field], None]] = {
    "kill": kill,
    "kill, taken over": kill_and_leave,
    "freeze past the session": freeze,
    "freeze while rejoining": freeze_rejoining,
    "freeze briefly": freeze_briefly,
    "clean restart": restart,
    "join or leave": join_or_leave,
    "kill while stopping": kill_while_stopping,
    "kill at a chosen moment": kill_in_the_act,
    "kill while starting": kill_while_starting,
    "reload": reload,
    "forget offsets": forget,
    "hog processors": hog,
    "kill follower": kill_follower,
    "freeze follower": freeze_follower,
    "kill broker": kill_broker,
    "freeze broker": freeze_broker,
}


def dice(seed: int) -> random.Random:
    """What all chance comes from; the same seed, the same faults."""
    return random.Random(seed)  # noqa: S311  nothing is protected by it


def schedule(rng: random.Random) -> Iterator[str]:
    """Names of faults, without end: each as often as every other, in an order of its own in every round."""
    while True:
        names = list(FAULTS)
        rng.shuffle(names)
        yield from names
