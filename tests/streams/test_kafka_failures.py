"""What the table of failures says of every error the client has, and calls that do not return."""

from __future__ import annotations

import threading

import pytest
from kafka import errors

from detector.errors import OperationError, UserError
from detector.streams.kafka.failures import RULES, Reaction, as_failure, rule_for
from detector.streams.kafka.limits import Caller, TimeLimitError

CLASSES = {error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, errors.KafkaError)}

# What ends up in the row "anything else": nothing a consumer, a transactional producer or the questions asked at the
# start can meet in a way of its own. A class the client adds has to be looked at: name it here, or give it a row.
_ANYTHING_ELSE = """
    BrokerIdNotRegisteredError BrokerResponseError DelegationTokenAuthDisabledError DelegationTokenExpiredError
    DelegationTokenNotFoundError DelegationTokenOwnerMismatchError DelegationTokenRequestNotAllowedError
    DuplicateBrokerRegistrationError DuplicateResourceError DuplicateSequenceNumberError DuplicateVoterError
    FeatureUpdateFailedError FencedMemberEpochError FencedStateEpochError GroupIdNotFoundError
    GroupSubscribedToTopicError IllegalArgumentError IllegalStateError InconsistentClusterIdError
    InconsistentVoterSetError IneligibleReplicaError InvalidCommitOffsetSizeError InvalidConfigurationError
    InvalidFetchRequestError InvalidPartitionsError InvalidPrincipalTypeError InvalidReceiveError InvalidRecordError
    InvalidRecordStateError InvalidRegistrationError InvalidReplicationAssignmentError InvalidReplicationFactorError
    InvalidRequestError InvalidRequiredAcksError InvalidTimestampError InvalidUpdateVersionError InvalidVoterKeyError
    KafkaError KafkaProtocolError LogDirNotFoundError MemberIdRequiredError MismatchedEndpointTypeError
    NewLeaderElectedError NoError NoReassignmentInProgressError NonEmptyGroupError OffsetMetadataTooLargeError
    OffsetMovedToTieredStorageError OperationNotAttemptedError PolicyViolationError PositionOutOfRangeError
    PrincipalDeserializationFailureError QuotaViolationError ReassignmentInProgressError ResourceNotFoundError
    SnapshotNotFoundError StaleBrokerEpochError StaleControllerEpochError StaleMemberEpochError TelemetryTooLargeError
    TopicAlreadyExistsError TopicDeletionDisabledError TransactionalIdNotFoundError UnacceptableCredentialError
    UnknownBrokerIdError UnknownControllerIdError UnknownError UnknownSubscriptionIdError UnrecognizedBrokerVersion
    UnsupportedAssignorError UnsupportedEndpointTypeError UnsupportedForMessageFormatError VoterNotFoundError
"""


def row_of(error: type[Exception]) -> int:
    return next(number for number, rule in enumerate(RULES) if issubclass(error, rule.errors))


def test_every_error_of_the_client_was_thought_of() -> None:
    catch_all = next(number for number, rule in enumerate(RULES) if rule.errors == (errors.KafkaError,))
    found = sorted(error.__name__ for error in CLASSES if row_of(error) == catch_all)
    assert found == sorted(_ANYTHING_ELSE.split())
    assert all(row_of(error) <= catch_all for error in CLASSES)


def test_every_row_counts_for_what_it_names() -> None:
    for number, rule in enumerate(RULES):
        for error in rule.errors:
            assert row_of(error) == number, f"{error.__name__} is caught by an earlier row"


def test_what_is_in_doubt_is_never_written_again() -> None:
    assert all(rule.writing is not Reaction.RETRY for rule in RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.errors[0].__name__)
def test_what_ends_the_process_has_the_exit_status_of_its_row(rule: object) -> None:
    assert isinstance(rule, type(RULES[0]))
    failure = as_failure(rule.errors[0]("told by the broker"), "read from x")
    assert isinstance(failure, UserError if rule.reading is Reaction.EXIT_2 else OperationError)
    assert "cannot read from x" in str(failure)
    assert "told by the broker" in str(failure)
    assert rule.todo in str(failure)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Unexpected error in InitProducerIdResponse: {}", errors.InvalidTransactionTimeoutError),
        ("Cannot execute transactional method because we are in an error state: {}", errors.ProducerFencedError),
        ("{}", errors.InvalidTxnStateError),
    ],
)
def test_an_answer_that_the_client_only_quotes_counts(text: str, kind: type[errors.BrokerResponseError]) -> None:
    """It wraps what it did not expect to be told in an error that has no class of its own."""
    assert rule_for(errors.KafkaError(text.format(kind()))) is rule_for(kind())


def test_an_error_that_quotes_nothing_is_its_own_kind() -> None:
    anything_else = rule_for(errors.KafkaError())
    assert rule_for(errors.KafkaError("[Error 99999] of a broker from the future")) is anything_else
    assert rule_for(errors.CommitFailedError("after [Error 50]")) is rule_for(errors.CommitFailedError())


def test_what_is_no_error_of_the_client_ends_the_process() -> None:
    rule = rule_for(AttributeError("'NoneType' object has no attribute 'offset'"))
    assert rule is RULES[-1]
    assert rule.reading is rule.writing is Reaction.EXIT_1


def test_a_call_that_never_returns_is_left_behind_with_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.streams.kafka.limits._TICK", 0.01)
    ticks: list[int] = []
    gate = threading.Event()
    caller = Caller(lambda: ticks.append(1))
    with pytest.raises(TimeLimitError, match=r"waiting did not return within 0\.05 s"):
        caller.call("waiting", 0.05, gate.wait)
    assert len(ticks) >= 3
    assert caller.call("the next", 10, lambda: 7) == 7  # on a thread of its own
    gate.set()
    caller.close()


def test_what_a_call_raises_is_raised() -> None:
    caller = Caller()
    with pytest.raises(errors.ProducerFencedError):
        caller.call("failing", 10, fail)
    caller.close()


def fail() -> None:
    raise errors.ProducerFencedError
