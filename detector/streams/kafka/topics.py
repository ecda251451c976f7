"""The topics as they have to be: looked at once, before anything is read or written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from kafka import errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from detector.config.streams import NewTopicsConfig
from detector.errors import UserError

_UNKNOWN: Final = errors.UnknownTopicOrPartitionError.errno
_log = logging.getLogger(__name__)


def check_topics(
    admin: KafkaAdminClient,
    state_topics: Mapping[str, str],
    outputs: Sequence[str],
    *,
    optional: Collection[str] = (),
    create: bool,
    new: NewTopicsConfig | None = None,
    validate_only: bool = False,
    owned: Callable[[Mapping[str, int]], None],
) -> dict[str, int]:
    """Partitions of each topic that there is. `state_topics`: the topic of its state for each input.

    `optional`: outputs that need not be there: who set up the broker for an older release knows nothing of them.
    `owned` is told them before anything is made or grown, and raises UserError if state is of another input.

    With `create`, topics that are missing are made as `new` says, and state topics grow with their input;
    with `validate_only` the broker is only asked whether it would do so. Raises UserError for what a person has to
    change, and errors of the client.
    """
    for name, state in state_topics.items():
        if state in outputs:
            raise UserError(
                f"the topic {state} is to be written to, and has the state of {name}",
                where="streams.kafka.group_id",
                todo="Give what is written (output, incidents.output) another name, or use another group_id",
            )
    names = [*state_topics, *state_topics.values(), *outputs]
    counts = _partitions(admin, names, may_be_hidden=optional)
    owned(counts)
    missing = [name for name in names if name not in counts]
    if not create:
        missing = [name for name in missing if name not in optional]
    if missing and not create:
        raise UserError(
            f"the broker has no topic {', '.join(missing)}",
            where="streams.kafka",
            todo="Create it (docs/operations.md, Topics), or set streams.kafka.create_topics: true",
        )
    if missing:
        maker = _Maker(admin, new or NewTopicsConfig(), validate_only=validate_only)
        maker.make([name for name in missing if name not in state_topics.values()])
        counts |= _partitions(admin, missing)
        states = [(name, state) for name, state in state_topics.items() if state in missing]
        for name, state in states:
            maker.make_state(state, counts.get(name))
        counts |= _partitions(admin, [state for _, state in states])
    for name, state in state_topics.items():
        if name in counts and state in counts:
            _same_count(admin, name, state, counts, create=create, validate_only=validate_only)
    _check_policies(admin, state_topics, counts)
    return counts


def _partitions(admin: KafkaAdminClient, names: Any, may_be_hidden: Collection[str] = ()) -> dict[str, int]:
    found = {}
    for topic in admin.describe_topics(list(names)) if names else ():
        code, name = topic["error_code"], topic["name"]
        if code == errors.TopicAuthorizationFailedError.errno:
            if name in may_be_hidden:
                continue
            raise UserError(
                f"there is no right to the topic {name}", where="streams.kafka", todo="Grant it (docs/operations.md)"
            )
        if code == errors.NoError.errno:
            found[name] = len(topic["partitions"])
        elif code != _UNKNOWN:
            raise errors.for_code(code)(name)
    return found


class _Maker:
    """Makes topics that are like `new` says, or has the broker say whether it would."""

    def __init__(self, admin: KafkaAdminClient, new: NewTopicsConfig, *, validate_only: bool) -> None:
        self._admin = admin
        self._new = new
        self._validate_only = validate_only

    def make(self, names: Sequence[str]) -> None:
        """Topics of messages."""
        if names:
            self._create(names, self._new.partitions, self._new.settings)

    def make_state(self, name: str, partitions: int | None) -> None:
        """A topic of state with as many partitions as its input, which is None where that is to be made, too."""
        settings = {**self._new.settings, **self._new.state_settings, "cleanup.policy": "compact"}
        self._create([name], partitions or self._new.partitions, settings)

    def _create(self, names: Sequence[str], partitions: int | None, settings: Mapping[str, str]) -> None:
        like = {
            "num_partitions": partitions or -1,
            "replication_factor": self._new.replication or -1,
            "configs": dict(settings),
        }
        if not self._validate_only:
            _log.warning("creating the topics %s", ", ".join(names))
        try:
            self._admin.create_topics(dict.fromkeys(names, like), validate_only=self._validate_only)
        except errors.TopicAlreadyExistsError:
            pass  # another member was faster
        except (errors.AuthorizationError, errors.PolicyViolationError) as error:
            raise UserError(
                f"cannot create the topics {', '.join(names)}: {type(error).__name__}",
                where="streams.kafka.create_topics",
                todo="Create them by hand (docs/operations.md, Topics)",
            ) from error
        except (
            errors.InvalidReplicationFactorError,
            errors.InvalidPartitionsError,
            errors.InvalidConfigurationError,
        ) as error:
            raise UserError(
                f"the broker does not create the topics {', '.join(names)} like this: {type(error).__name__}",
                where="streams.kafka.new_topics",
                todo="Correct its partitions, replication or settings",
            ) from error
        if not self._validate_only:
            self._admin.wait_for_topics(list(names))


def _same_count(
    admin: KafkaAdminClient, name: str, state: str, counts: dict[str, int], *, create: bool, validate_only: bool
) -> None:
    """Partition p of the state topic belongs to partition p of the input."""
    if counts[name] == counts[state]:
        return
    if counts[state] < counts[name] and create:
        admin.create_partitions({state: counts[name]}, validate_only=validate_only)
        if not validate_only:
            _log.warning(
                "%s has %d partitions now, had %d: sensors whose key goes elsewhere now begin there with nothing",
                name, counts[name], counts[state],
            )  # fmt: skip
            admin.wait_for_topics([state])
        return
    grown = counts[state] < counts[name]
    what = "partitions were added to it" if grown else "it was recreated with fewer"
    todo = (
        f"Add partitions to {state}, or set streams.kafka.create_topics: true. Sensors whose key goes elsewhere now "
        "begin there with nothing"
        if grown
        else f"Delete {state} and the group's offsets, or use another group_id"
    )
    raise UserError(
        f"{name} has {counts[name]} partitions and its state topic {state} {counts[state]}: {what}",
        where="streams.kafka",
        todo=todo,
    )


def _check_policies(admin: KafkaAdminClient, state_topics: Mapping[str, str], counts: Mapping[str, int]) -> None:
    """An input that is compacted would lose readings, state that is deleted by age would not be complete."""
    wanted = dict.fromkeys(state_topics, "delete") | dict.fromkeys(state_topics.values(), "compact")
    wanted = {name: policy for name, policy in wanted.items() if name in counts}
    if not wanted:
        return
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, ["cleanup.policy"]) for name in wanted]
    found = admin.describe_configs(resources, config_filter="all").get("topic", {})
    for name, policy in wanted.items():
        entry = found.get(name, {}).get("cleanup.policy")
        if entry is None:
            raise UserError(
                f"there is no right to see the settings of the topic {name}",
                where="streams.kafka",
                todo="Grant DescribeConfigs (docs/operations.md, Rights)",
            )
        if entry["value"] != policy:
            raise UserError(
                f"the topic {name} has cleanup.policy {entry['value']} and needs {policy}",
                where="streams.kafka",
                todo=f"Set it: kafka-configs --alter --topic {name} --add-config cleanup.policy={policy}",
            )
