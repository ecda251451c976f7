"""What each kind of client error leads to: THE table, which `docs/operations.md` shows and a test compares.

While reading and connecting, what passes by itself is tried again. While writing nothing is tried again: an open
transaction whose outcome is in doubt is given up, and the partitions are restored from what was committed.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, NamedTuple

from kafka import errors

from detector.errors import DetectorError, OperationError, UserError
from detector.streams.kafka.limits import TimeLimitError


class Reaction(Enum):
    """What is done about an error."""

    RETRY = "retry"
    RESTORE = "abort and restore"
    POLICY = "as `on_offset_out_of_range` says"
    EXIT_1 = "exit 1"
    EXIT_2 = "exit 2"


class Rule(NamedTuple):
    """A row: classes of errors (the first row that matches counts), what they mean and what is done."""

    errors: tuple[type[Exception], ...]
    reading: Reaction
    writing: Reaction
    meaning: str
    todo: str


LEFT_BEHIND: Final = (
    errors.CommitFailedError, errors.UnknownMemberIdError, errors.IllegalGenerationError,
    errors.RebalanceInProgressError,
)  # fmt: skip
FENCED: Final = (errors.ProducerFencedError, errors.FencedInstanceIdError, errors.UnreleasedInstanceIdError)
CORRUPT: Final = (errors.CorruptRecordError, errors.UnsupportedCodecError, errors.UnsupportedCompressionTypeError)
OUT_OF_RANGE: Final = (errors.OffsetOutOfRangeError, errors.NoOffsetForPartitionError, errors.LogTruncationError)

RULES: Final = (
    Rule(
        FENCED, Reaction.RESTORE, Reaction.RESTORE,
        "another process, or a later self after a long stop, took over the instance name",
        "Twice within 60 s ends the process: give each one its own streams.kafka.instance or $DETECTOR_INSTANCE",
    ),
    Rule(
        (errors.SaslAuthenticationFailedError, errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError),
        Reaction.EXIT_2, Reaction.EXIT_2,
        "the broker refuses the credentials or the mechanism",
        "Correct streams.kafka.sasl_mechanism, sasl_username and the password",
    ),
    Rule(
        (errors.AuthorizationError,), Reaction.EXIT_2, Reaction.EXIT_2,
        "rights are missing",
        "Grant them (docs/operations.md, Rights)",
    ),
    Rule(
        CORRUPT, Reaction.EXIT_1, Reaction.EXIT_1,
        "a batch of the input cannot be read",
        "Pass over it with `detector run --skip-to TOPIC:PARTITION:OFFSET`",
    ),
    Rule(
        OUT_OF_RANGE, Reaction.POLICY, Reaction.RESTORE,
        "the committed offset is not in the topic any more",
        "Set streams.kafka.on_offset_out_of_range to earliest or latest to go on without what is gone",
    ),
    Rule(
        (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError), Reaction.EXIT_2, Reaction.EXIT_2,
        "a record is larger than its topic allows",
        "Raise max.message.bytes of the output and state topics to 1 MiB",
    ),
    Rule(
        (errors.InvalidTransactionTimeoutError,), Reaction.EXIT_2, Reaction.EXIT_2,
        "the broker does not allow transactions to take so long",
        "Lower streams.kafka.transaction_timeout, or raise transaction.max.timeout.ms of the brokers",
    ),
    Rule(
        (errors.InvalidSessionTimeoutError,), Reaction.EXIT_2, Reaction.EXIT_2,
        "the broker does not allow a session timeout like this",
        "Set streams.kafka.session_timeout between group.min.session.timeout.ms and group.max.session.timeout.ms of "
        "the brokers",
    ),
    Rule(
        (
            errors.InvalidGroupIdError, errors.InconsistentGroupProtocolError, errors.UnsupportedVersionError,
            errors.KafkaConfigurationError, errors.InvalidTopicError, errors.SecurityDisabledError,
        ),
        Reaction.EXIT_2, Reaction.EXIT_2,
        "broker and configuration do not agree",
        "Correct the setting that the message names",
    ),
    Rule(
        (errors.GroupMaxSizeReachedError,), Reaction.EXIT_1, Reaction.EXIT_1,
        "the group has as many members as the broker allows",
        "Stop another member or raise group.max.size",
    ),
    Rule(
        LEFT_BEHIND, Reaction.RESTORE, Reaction.RESTORE,
        "the group went on without this member: it was stopped or slow for longer than the session timeout",
        "Nothing; often: give the process more CPU, or raise streams.kafka.session_timeout",
    ),
    Rule(
        (
            errors.InvalidProducerEpochError, errors.OutOfOrderSequenceNumberError, errors.UnknownProducerIdError,
            errors.InvalidTxnStateError, errors.InvalidProducerIdMappingError,
            errors.TransactionCoordinatorFencedError, errors.TransactionAbortedError, errors.TransactionAbortableError,
            errors.ConcurrentTransactionsError,
        ),
        Reaction.RESTORE, Reaction.RESTORE,
        "the broker gave up the transaction",
        "Nothing; often: raise streams.kafka.transaction_timeout",
    ),
    Rule(
        (TimeLimitError,), Reaction.RETRY, Reaction.RESTORE,
        "a call of the client did not return",
        "Nothing; look after the broker",
    ),
    Rule(
        (errors.RetriableError, errors.BrokerNotAvailableError), Reaction.RETRY, Reaction.RESTORE,
        "the broker is away, starting or moving its leaders",
        "Nothing until streams.kafka.broker_outage_limit has passed; then exit 1",
    ),
    Rule(
        (errors.KafkaError,), Reaction.EXIT_1, Reaction.RESTORE,
        "anything else the client says",
        "Nothing; if it comes again, the log has the client's words",
    ),
    Rule(
        (Exception,), Reaction.EXIT_1, Reaction.EXIT_1,
        "the client failed in a way it does not describe",
        "Report it, with the log",
    ),
)  # fmt: skip


_CODE: Final = re.compile(r"\[Error (\d+)\]")


def rule_for(error: BaseException) -> Rule:
    """The row of an error."""
    kind = _kind_of(error)
    return next((rule for rule in RULES if issubclass(kind, rule.errors)), RULES[-1])


def _kind_of(error: BaseException) -> type[BaseException]:
    """The class of an error; where the client only quotes what the broker answered, the class of that answer."""
    quoted = _CODE.findall(str(error)) if type(error) is errors.KafkaError else []
    return errors.for_code(int(quoted[-1])) if quoted else type(error)


def is_fenced(error: BaseException) -> bool:
    """Whether another process took over this one's name."""
    return rule_for(error).errors is FENCED


def is_left_behind(error: BaseException) -> bool:
    """Whether the group went on without this member."""
    return rule_for(error).errors is LEFT_BEHIND


def told(error: BaseException) -> str:
    """What an error means, with the client's words."""
    return f"{rule_for(error).meaning} [{type(error).__name__}: {_short(error)}]"


def as_failure(error: BaseException, doing: str) -> DetectorError:
    """The error that ends the process; `doing` names what was tried ("read from sensor-readings")."""
    rule = rule_for(error)
    kind = UserError if Reaction.EXIT_2 in (rule.reading, rule.writing) else OperationError
    return kind(f"cannot {doing}: {told(error)}", where="streams.kafka", todo=rule.todo)


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
