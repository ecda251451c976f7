"""A real Kafka broker for tests: one KRaft node from Maven's artefacts, up in seconds, gone with its parent.

`python -m tests.kafka.broker` runs one in the foreground.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self

from kafka.admin import KafkaAdminClient, NewTopic

from tests.kafka.certificates import Certificates, make_certificates

HERE: Final = Path(__file__).parent
LIBS: Final = HERE / "libs"
JARS: Final = LIBS / "jars"
USERS: Final = {"alice": "alice-secret", "guest": "guest-secret"}
"""Users of the SASL listener and their passwords: alice may do everything, guest nothing."""

SHORT_LIVED: Final = "-XX:TieredStopAtLevel=1"
"""Java without the compiler that takes its time."""
START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 20.0


class UnavailableError(Exception):
    """There can be no broker here: no Java, no Maven, no way to fetch it. The text says what to do."""


class Cluster:
    """A Kafka to test against, wherever it comes from. `address`: host and port of its plain-text listener."""

    def __init__(self, address: str) -> None:
        self.address = address

    @contextlib.contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """A client for everything that has no shorthand here."""
        client = KafkaAdminClient(bootstrap_servers=self.address)
        try:
            yield client
        finally:
            client.close()

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic, wait until it can be used, and return its name."""
        self.create_topics({name: (partitions, config or {})})
        return name

    def create_topics(self, wanted: Mapping[str, tuple[int, Mapping[str, str]]]) -> None:
        """Create topics, each with its partitions and settings, and wait until they can be used."""
        topics = [NewTopic(name, count, 1, topic_configs=dict(config)) for name, (count, config) in wanted.items()]
        with self.admin() as admin:
            admin.create_topics(topics)
            admin.wait_for_topics(list(wanted))

    @staticmethod
    def unique(prefix: str) -> str:
        """A name for a topic or a group that nothing else on the broker has."""
        return f"{prefix}-{uuid.uuid4().hex[:10]}"


TUTORIAL_TOPICS: Final = ("sensor-readings", "anomaly-alerts", "detector-dead-letters")
"""What `make kafka` makes; the state topics are made by the daemon, which knows how many partitions they need."""


class Broker(Cluster):
    """A broker of our own, which may be killed and started again on the same data and ports.

    It keeps data, settings and log below `directory`, which must be new. `secure` adds a TLS listener (`ssl_address`,
    a client certificate is asked for, not required), a SASL_SSL listener with SCRAM-SHA-512, PLAIN (`USERS`) and
    OAUTHBEARER with tokens that are not signed (`sasl_address`), and rights: plain-text clients, alice and the client
    certificate may do everything, all others nothing.
    `settings` are added to the broker's own. Topics are never made by being named. `lasting`: compiled for a long life,
    as one whose speed matters; else for a short one, which costs half the processor time.
    """

    def __init__(
        self,
        directory: Path,
        *,
        secure: bool = False,
        heap_mb: int = 384,
        settings: Mapping[str, str] | None = None,
        lasting: bool = False,
    ) -> None:
        plain, controller, tls, sasl = free_ports(4)
        super().__init__(f"127.0.0.1:{plain}")
        self.ssl_address = f"127.0.0.1:{tls}"
        self.sasl_address = f"127.0.0.1:{sasl}"
        self.directory = directory
        self.secure = secure
        self.log = directory / "broker.log"
        self._heap_mb = heap_mb
        self._compiler = [] if lasting else [SHORT_LIVED]
        self._settings = dict(settings or {})
        self._controller = f"127.0.0.1:{controller}"
        self._properties = directory / "server.properties"
        self._certificates: Certificates | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def certificates(self) -> Certificates:
        """Of a secure broker that was started once."""
        if self._certificates is None:
            raise ValueError("only a secure broker has certificates")
        return self._certificates

    @property
    def pid(self) -> int | None:
        """The process, or None while there is none."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> None:
        """Start, the first time on empty data, and return when it serves. Raises UnavailableError, RuntimeError."""
        if self.pid is not None:
            raise RuntimeError("the broker is running")
        fetch_libs()
        if not self._properties.exists():
            self._format()
        offset = self.log.stat().st_size if self.log.exists() else 0
        heap = f"{self._heap_mb}m"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *dies_with_us(), _java(), f"-Xms{heap}", f"-Xmx{heap}", "-XX:+UseSerialGC", *self._compiler,
                    "-cp", f"{JARS}/*", "kafka.Kafka", str(self._properties),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            self._wait_until_started(offset)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL, also to a paused one. Returns when the process is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that does not help."""
        try:
            self._end(signal.SIGTERM)
        except subprocess.TimeoutExpired:
            self.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._signal(number)
            self._process.wait(STOP_SECONDS)
            self._process = None

    def _wait_until_started(self, offset: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with self.log.open("rb") as log:
                log.seek(offset)
                if b"Kafka Server started" in log.read():
                    return
            if self.pid is None:
                raise RuntimeError(f"the test broker died while starting; its log ends:\n{self._log_end()}")
            time.sleep(0.05)
        raise RuntimeError(f"the test broker did not start in {START_SECONDS:g} s; its log ends:\n{self._log_end()}")

    def _log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def _format(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.secure:
            if shutil.which("openssl") is None:
                raise UnavailableError("there is no `openssl` for its certificates; install openssl")
            self._certificates = make_certificates(self.directory / "certificates", "certified")
        part = self._properties.with_suffix(".part")
        part.write_text("".join(f"{key}={value}\n" for key, value in self._all_settings().items()))
        cluster_id = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        scram = [
            option
            for user, password in (USERS if self.secure else {}).items()
            for option in ("--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]")
        ]
        done = subprocess.run(
            [
                _java(), "-Xmx128m", "-XX:+UseSerialGC", SHORT_LIVED, "-cp", f"{JARS}/*",
                "kafka.tools.StorageTool", "format", "--standalone",
                f"--cluster-id={cluster_id}", "--config", str(part), *scram,
            ],
            capture_output=True, text=True, timeout=START_SECONDS,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"the test broker's storage cannot be formatted:\n{done.stdout}{done.stderr}")
        part.rename(self._properties)

    def _all_settings(self) -> dict[str, str]:
        listeners = {"PLAINTEXT": self.address}
        if self.secure:
            listeners |= {"SSL": self.ssl_address, "SASL_SSL": self.sasl_address}
        advertised = ",".join(f"{name}://{address}" for name, address in listeners.items())
        protocols = ",".join(f"{name}:{name}" for name in listeners)
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.bootstrap.servers": self._controller,
            "listeners": f"{advertised},CONTROLLER://{self._controller}",
            "advertised.listeners": advertised,
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,{protocols}",
            "log.dirs": str(self.directory / "data"),
            "auto.create.topics.enable": "false",
            "num.partitions": "3",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            # A killed broker comes back to its own registration, which has to expire first.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            # Transactions of the dead are looked for every 10 s otherwise, whatever their own timeout.
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
            "log.cleaner.dedupe.buffer.size": str(16 << 20),
            "num.network.threads": "2",
            "num.io.threads": "4",
        }
        if self.secure:
            store, authority = self.certificates.server_store, self.certificates.authority
            settings |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(store),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(authority),
                "listener.name.ssl.ssl.client.auth": "requested",
                "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN,OAUTHBEARER",
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                ),
                "listener.name.sasl_ssl.plain.sasl.jaas.config": (
                    "org.apache.kafka.common.security.plain.PlainLoginModule required "
                    + " ".join(f'user_{user}="{password}"' for user, password in USERS.items())
                    + ";"
                ),
                "listener.name.sasl_ssl.oauthbearer.sasl.jaas.config": (
                    "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;"
                ),
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS;User:alice;User:CN=certified",
            }
        return settings | self._settings


def fetch_libs() -> None:
    """Have Maven copy the broker's jars below `libs`, once for every change of the pom. Raises UnavailableError."""
    pom = HERE / "pom.xml"
    fetched = JARS / "pom.xml"
    _java()
    LIBS.mkdir(exist_ok=True)
    with (LIBS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if fetched.exists() and fetched.read_bytes() == pom.read_bytes():
            return
        maven = shutil.which("mvn")
        if maven is None:
            raise UnavailableError("there is no `mvn` to fetch the broker with; install maven")
        part = LIBS / "part"
        for old in (part, JARS):
            shutil.rmtree(old, ignore_errors=True)
        done = subprocess.run(
            [
                maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime",
                f"-DoutputDirectory={part}",
            ],
            capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        if done.returncode:
            reason = (done.stdout + done.stderr).strip().splitlines()
            raise UnavailableError(f"Maven cannot fetch the broker: {reason[0] if reason else 'it does not say why'}")
        shutil.copy(pom, part)
        part.rename(JARS)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, below those the kernel hands to clients.

    A client that keeps dialling a dead broker's port in that range gets it as its own sooner or later, is connected
    to itself, and the broker cannot start again.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randint(20_000, 32_000)  # noqa: S311  nothing is protected by it
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in ports:
                ports.append(port)
    return ports


def _java() -> str:
    java = shutil.which("java")
    if java is None:
        raise UnavailableError("there is no `java` to run the broker with; install a Java runtime, 17 or newer")
    return java


def dies_with_us() -> list[str]:
    """Start of a command whose process gets SIGKILL when this one ends, however it ends.

    The kernel takes the end of the *thread* for it: a process started by a thread that ends is gone at once.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or threading.current_thread() is not threading.main_thread():
        return []
    return [setpriv, "--pdeathsig", "KILL"]


def main() -> int:
    """Run a broker until Ctrl-C or SIGTERM, with the topics of the tutorial."""
    parser = argparse.ArgumentParser(prog="python -m tests.kafka.broker", description=main.__doc__)
    parser.add_argument("--secure", action="store_true", help="with TLS and SASL_SSL listeners, and rights")
    secure = parser.parse_args().secure
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with tempfile.TemporaryDirectory(prefix="detector-kafka-") as directory:
        broker = Broker(Path(directory) / "broker", secure=secure)
        try:
            broker.start()
        except UnavailableError as error:
            sys.stderr.write(f"No test broker: {error}.\n")
            return 1
        for topic in TUTORIAL_TOPICS:
            broker.create_topic(topic)
        sys.stdout.write(f"{broker.address}\n")
        sys.stderr.write(f"Topics: {', '.join(TUTORIAL_TOPICS)}. Ctrl-C ends the broker and deletes them.\n")
        if secure:
            sys.stdout.write(f"SSL {broker.ssl_address}, SASL_SSL {broker.sasl_address}, users {USERS}\n")
            sys.stdout.write(f"certificates in {broker.certificates.authority.parent}\n")
        sys.stdout.flush()
        done.wait()
        broker.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
