from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from detector.config import load as config_module
from detector.config import yamltext
from detector.config.base import resolve_token
from detector.config.load import (
    AlertsConfig,
    Config,
    FalseAlarms,
    FrameAlertsConfig,
    HttpConfig,
    KafkaConfig,
    MaintenanceConfig,
    OpenAfter,
    SchemaRegistryConfig,
    TargetConfig,
    config_schema,
    find_config,
    format_duration,
    load_config,
    parse_duration,
    resolve_secret,
)
from detector.errors import UserError

SHIPPED = Path(__file__).parents[2] / "config.yaml"
SECOND = 10**9

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, *overrides: str) -> Config:
        file = tmp_path / "config.yaml"
        file.write_text(text, encoding="utf-8")
        return load_config(file, overrides)

    return load


@pytest.fixture
def refusal(load: Load, tmp_path: Path) -> Callable[..., str]:
    def refusal(text: str, *overrides: str) -> str:
        with pytest.raises(UserError) as caught:
            load(text, *overrides)
        line = str(caught.value).replace(str(tmp_path / "config.yaml"), "FILE")
        assert "\n" not in line
        return line

    return refusal


def test_the_shipped_file_shows_every_key_with_its_default() -> None:
    shipped = load_config(SHIPPED)
    assert shipped == Config()
    assert_all_set(shipped)


def assert_all_set(section: Any) -> None:
    without_meaning = {"direction", "min_deviation"} if isinstance(section, FrameAlertsConfig) else set()
    assert set(type(section).model_fields) - without_meaning == section.model_fields_set, type(section)
    for name in section.model_fields_set:
        value = getattr(section, name)
        if hasattr(value, "model_fields_set"):
            assert_all_set(value)


def test_defaults_read_as_nanoseconds_and_tuples() -> None:
    config = Config()
    assert config.readings.window.allowed_lateness == 0
    assert config.readings.window.max_future == 300 * SECOND
    assert config.readings.window.max_gap is None
    assert config.readings.channels == ("value",)
    assert (config.readings.alerts.open_after.n, config.readings.alerts.open_after.of) == (10, 10)
    assert (config.frames.alerts.open_after.n, config.frames.alerts.open_after.of) == (3, 5)
    assert config.frames.alerts.update_every == 15 * 60 * SECOND
    assert config.streams.kafka.commit_interval == 100_000_000


def test_nothing_can_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().readings.warmup = 5


def test_an_empty_file_and_an_empty_mapping_are_the_defaults(load: Load) -> None:
    assert load("") == load("# nothing\n") == load("{}") == Config()


def test_a_part_leaves_the_rest_alone(load: Load) -> None:
    config = load("frames: {alerts: {open_after: {n: 2}}}\nreadings: {window: {max_gap: 1h}}")
    assert (config.frames.alerts.open_after.n, config.frames.alerts.open_after.of) == (2, 5)
    assert config.frames.alerts.close_after == 20
    assert config.readings.window.max_gap == 3600 * SECOND


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "readings: {warmup: 1e3}",
            "expected a whole number, but `1e3` is written (FILE:readings.warmup). Write 1000.",
        ),
        (
            "readings: {warmup: 017}",
            "expected a whole number, but `017` is written (FILE:readings.warmup). Correct it.",
        ),
        (
            "readings: {warmup: 1_000}",
            "expected a whole number, but `1_000` is written (FILE:readings.warmup). Correct it.",
        ),
        (
            "readings: {warmup: true}",
            "expected a whole number, but `true` is written (FILE:readings.warmup). Correct it.",
        ),
        (
            "readings: {warmup: 149}",
            "expected a number of at least 150, but `149` is written (FILE:readings.warmup). Correct it.",
        ),
        (
            "readings: {enabled: no}",
            "expected true or false, but `no` is written (FILE:readings.enabled). Write false.",
        ),
        ("readings: {enabled: On}", "expected true or false, but `On` is written (FILE:readings.enabled). Write true."),
        (
            "readings: {window: {max_gap: 12:30}}",
            "expected a duration such as 250ms, 10s, 5m, 12h or 7d, but `12:30` is written "
            "(FILE:readings.window.max_gap). Write a whole number and ms, s, m, h or d.",
        ),
        (
            "readings: {window: {max_gap: 300}}",
            "expected a duration such as 250ms, 10s, 5m, 12h or 7d, but `300` is written "
            "(FILE:readings.window.max_gap). Add the unit.",
        ),
        (
            "readings: {silence_after: 2026-11-22}",
            "expected auto, or a duration such as 250ms, 10s, 5m, 12h or 7d, but `2026-11-22` is written "
            "(FILE:readings.silence_after). Write a whole number and ms, s, m, h or d.",
        ),
        (
            "readings: {window: {max_future: null}}",
            "expected a duration such as 250ms, 10s, 5m, 12h or 7d, but `null` is written "
            "(FILE:readings.window.max_future). Add the unit.",
        ),
        (
            "readings: {input: 2026}",
            'expected text, but `2026` is written (FILE:readings.input). Write "2026" in quotes.',
        ),
        (
            "http: {listen: 9108}",
            "expected an address and a port such as 127.0.0.1:9108, but `9108` is written (FILE:http.listen). "
            "Correct it.",
        ),
        (
            "readings: {timezone: 1}",
            "expected the name of a time zone such as Europe/Berlin or UTC, but `1` is written "
            "(FILE:readings.timezone). Correct it.",
        ),
        (
            "readings: {channels: value}",
            "expected a list, but `value` is written (FILE:readings.channels). Correct it.",
        ),
        (
            "readings:\n",
            "expected a mapping of settings, but `nothing` is written (FILE:readings). "
            "Write settings under it, or remove it.",
        ),
        ("redings: {}", "unknown key `redings` (FILE:redings). Perhaps readings is meant."),
        (
            "readings: {allowed_lateness: 1s}",
            "unknown key `allowed_lateness` (FILE:readings.allowed_lateness). "
            "Perhaps readings.window.allowed_lateness is meant.",
        ),
        ("log: {colour: red}", "unknown key `colour` (FILE:log.colour). Known here: level, format."),
        (
            "maintenance: [{match: a, fron: x, to: y}]",
            "maintenance[0].from is missing (FILE:maintenance[0].from). Add it. 2 more problems after this one.",
        ),
        (
            "log: {level: loud}",
            "expected `debug`, `info`, `warning` or `error`, but `loud` is written (FILE:log.level). Correct it.",
        ),
        (
            "training: {activation: sigmoid}",
            "activation sigmoid does not go with scaler standard (FILE:training). "
            "Set scaler: minmax, or an activation for standard.",
        ),
        (
            "readings: {alerts: {open_after: {n: 11}}}",
            "n is 11, more than the 10 rows it is counted in (FILE:readings.alerts.open_after). Lower n or raise of.",
        ),
        (
            "readings: {alerts: {false_alarms: {per: 10000}}}",
            "expected hour, day, week, month, year, a duration such as 12h, or a number such as `10000 readings`, but "
            "`10000` is written (FILE:readings.alerts.false_alarms.per). Write `10000 readings` if readings are meant.",
        ),
        (
            "frames: {alerts: {direction: above}}",
            "direction has no meaning for frames: a picture has no usual level to lie above or below "
            "(FILE:frames.alerts). Remove it.",
        ),
        (
            "frames: {alerts: {min_deviation: {relative: 0.5}}}",
            "min_deviation has no meaning for frames: a picture has no usual level to lie above or below "
            "(FILE:frames.alerts). Remove it; a stricter false_alarms means fewer alerts.",
        ),
        (
            "output: {scores: anomaly-alerts}",
            "output.alerts and output.scores are both the stream anomaly-alerts (FILE). Give each its own name.",
        ),
        (
            "rejects: {max_share: 1e400}",
            "expected a finite number, but `1e400` is written (FILE:rejects.max_share). Correct it.",
        ),
        ("a: 1\nb: 2\na: 3", "the key is given twice (FILE:a line 3). Keep one of them."),
        ("log: {level: info, level: debug}", "the key is given twice (FILE:log.level line 1). Keep one of them."),
        ("log: &x {}", "anchors and aliases are not allowed (FILE:line 1). Write the value out."),
        ("log: {level: info}\nhttp: *x", "anchors and aliases are not allowed (FILE:line 2). Write the value out."),
        ("log: !!map {}", "the tag `tag:yaml.org,2002:map` is not allowed (FILE:line 1). Remove it."),
        ("a: 1\n---\nb: 2", "more than one document (FILE:line 2). Keep one and remove the `---` lines."),
        ("[1, 2]", "the configuration is no mapping (FILE). Write `key: value` lines."),
        ("? [a]\n: 1", "a key is not text (FILE:line 1). Write `key: value`."),
        ('log: {level: "\\ud800"}', "the text holds half a character (a lone surrogate) (FILE:log.level). Correct it."),
        (
            "log:\n\tlevel: info",
            "not valid YAML: found character '\\t' that cannot start any token (FILE:line 2). Correct it.",
        ),
        ("[" * 40, "the values are nested too deeply (FILE:line 1). Remove a level."),
        (
            "a: \x00",
            "not valid YAML: unacceptable character #x0000: special characters are not allowed (FILE). Correct it.",
        ),
    ],
)
def test_every_error_is_one_line_that_says_what_where_and_what_to_do(
    refusal: Callable[..., str], text: str, line: str
) -> None:
    assert refusal(text) == line


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ("streams", "{kafka: {security_protocol: SASL_SSL}}"),
        ("streams", "{kafka: {sasl_password_file: a, sasl_password_env: B}}"),
        ("streams", "{kafka: {ssl_cert_file: a}}"),
        ("streams", "{kafka: {bootstrap_servers: []}}"),
        ("streams", "{kafka: {schema_registry: {}}}"),
        ("streams", "{kafka: {schema_registry: {url: localhost}}}"),
        ("streams", '{kafka: {schema_registry: {url: "http://a", username: b}}}'),
        ("streams", '{kafka: {schema_registry: {url: "http://a", username: b, password_env: C, token_env: D}}}'),
        ("streams", '{kafka: {schema_registry: {url: "http://a", token_file: c, token_env: D}}}'),
        ("streams", '{kafka: {schema_registry: {url: "https://a", ssl_cert_file: c}}}'),
        ("streams", "{kafka: {group_id: ../x}}"),
        ("streams", "{kafka: {commit_interval: 0s}}"),
        ("readings", "{channels: []}"),
        ("readings", "{channels: [a, a]}"),
        ("readings", "{fields: {timestamp: value}}"),
        ("readings", "{fields: {timestamp: value, value: values}}"),
        ("readings", "{window: {stride: 0}}"),
        ("readings", "{window: {fill: cubic}}"),
        ("readings", "{window: {allowed_lateness: 999999999d}}"),
        ("readings", "{alerts: {false_alarms: {per_sensor: 0}}}"),
        ("readings", "{alerts: {false_alarms: {per: 0s}}}"),
        ("readings", "{alerts: {false_alarms: {per: 0 readings}}}"),
        ("readings", "{alerts: {open_after: {of: 101}}}"),
        ("readings", "{alerts: {critical_ratio: 0.5}}"),
        ("readings", "{overrides: [{match: a}]}"),
        ("readings", "{align: {within: 1s}}"),
        ("readings", "{machines: [{id: a, channels: {value: t}}, {id: a, channels: {value: u}}]}"),
        ("readings", "{machines: [{id: a, channels: {value: t}}, {id: b, channels: {value: t}}]}"),
        ("readings", "{channels: [x, y], machines: [{id: a, channels: {x: t}}]}"),
        ("readings", "{channels: [x, y], machines: [{id: a, channels: {x: t, y: t}}]}"),
        ("readings", "{machines: [{id: a, channels: {}}]}"),
        ("readings", "{channels: [x], machines: [{id: a, channels: {x: t}}], fields: {value: {x: v}}}"),
        ("readings", "{machines: [{id: a, channels: {value: t}}], align: {fill: linear}}"),
        ("maintenance", '[{match: a, from: "2026-12-24", to: "2026-12-27T00:00:00Z"}]'),
        ("maintenance", "[{match: a, from: 2026-12-24T00:00:00Z, to: 2026-12-24T00:00:00Z}]"),
        ("http", "{listen: 9108}"),
        ("http", '{listen: "localhost:99999"}'),
        ("metrics", f"{{sensors: [{', '.join(f's{i}' for i in range(101))}]}}"),
        ("training", "{hidden: []}"),
        ("training", "{seed: -1}"),
    ],
)
def test_refused_values(refusal: Callable[..., str], section: str, text: str) -> None:
    assert f"(FILE:{section}" in refusal(f"{section}: {text}")


def test_accepted_forms(load: Load) -> None:
    config = load(
        """
        readings:
          channels: [no, on]          # names, not booleans
          silence_after: 10m
          alerts: {false_alarms: null, update_every: ~, critical_ratio: 1e1}
          overrides: [{match: "pump-*", alerts: {direction: above, false_alarms: null}}]
        maintenance: [{match: a, from: 2026-12-24T00:00:00Z, to: "2026-12-24 01:00:00"}]
        http: {listen: "[::1]:0"}
        streams: {kafka: {group_id: "7"}}
        training: {activation: tanh, scaler: symmetric}
        """
    )
    assert config.readings.channels == ("no", "on")
    assert config.readings.silence_after == 600 * SECOND
    assert config.readings.alerts.false_alarms is None
    assert config.readings.alerts.update_every is None
    assert config.readings.alerts.critical_ratio == 10.0
    assert config.readings.overrides[0].alerts.model_fields_set == {"direction", "false_alarms"}
    assert config.maintenance[0].end - config.maintenance[0].start == 3600 * SECOND
    assert (config.http.host, config.http.port) == ("::1", 0)


def test_several_problems_are_counted(refusal: Callable[..., str]) -> None:
    line = refusal("readings: {enabled: 2, warmup: x}\nlog: {level: 1}")
    assert line.endswith("Correct it. 2 more problems after this one.")


@pytest.mark.parametrize(
    ("per", "period", "readings"),
    [
        ("hour", 3600 * SECOND, None),
        ("week", 7 * 86400 * SECOND, None),
        ("month", 30 * 86400 * SECOND, None),
        ("12h", 12 * 3600 * SECOND, None),
        ("10000 readings", None, 10_000),
        ("1 reading", None, 1),
    ],
)
def test_budgets(per: str, period: int | None, readings: int | None) -> None:
    budget = FalseAlarms(per=per)
    assert (budget.period, budget.readings) == (period, readings)


def test_sections_can_be_made_in_code() -> None:
    muted = MaintenanceConfig.model_validate({"match": "a", "from": 1, "to": 2})
    assert (muted.start, muted.end) == (1, 2)
    with pytest.raises(ValidationError, match="a duration"):
        AlertsConfig(max_duration=True)
    with pytest.raises(ValidationError, match="hour, day"):
        FalseAlarms(per="fortnight")
    alerts = AlertsConfig(open_after=OpenAfter(n=3, of=5), max_duration=5 * SECOND)
    assert alerts.max_duration == 5 * SECOND
    with pytest.raises(ValidationError):
        OpenAfter(n=6, of=5)
    assert HttpConfig(listen="0.0.0.0:80").host == "0.0.0.0"  # noqa: S104


class TestOverrides:
    def test_replace_values_and_are_typed_like_the_file(self, load: Load) -> None:
        config = load(
            "log: {level: info}",
            "log.level=debug",
            "readings.channels=[a, b]",
            "readings.window.max_gap=1h",
            "readings.alerts.false_alarms={per: day}",
        )
        assert config.log.level == "debug"
        assert config.readings.channels == ("a", "b")
        assert config.readings.window.max_gap == 3600 * SECOND
        assert config.readings.alerts.false_alarms == FalseAlarms(per="day")

    def test_need_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(config_module, "SEARCH", (Path("config.yaml"),))
        assert load_config(None, ["shutdown_timeout=1s"]).shutdown_timeout == SECOND

    @pytest.mark.parametrize(
        ("override", "line"),
        [
            ("log.level=loud", "`loud` is written (--set log.level). Correct it."),
            (
                "log.level.x=3",
                "expected `debug`, `info`, `warning` or `error`, but a mapping is written (--set log.level.x).",
            ),
            ("lg.level=info", "unknown key `lg` (--set lg.level). Perhaps log is meant."),
            ("log.level", "`log.level` sets nothing (--set)."),
            ("=3", "`=3` sets nothing (--set)."),
            ("log..level=3", "`log..level=3` sets nothing (--set)."),
            ("http.listen=", "no value is given (--set http.listen)."),
            ("log=level: info", "`level: info` is no YAML scalar, [list] or {mapping} (--set log)."),
            ("log={", "`{` is no YAML scalar, [list] or {mapping} (--set log)."),
            ("log=[[*a]]", "anchors and aliases are not allowed (--set log)."),
            ("log=a\nb", "the value has several lines (--set log)."),
            (
                "readings.alerts.open_after.of=3",
                "n is 5, more than the 3 rows it is counted in (--set readings.alerts.",
            ),
        ],
    )
    def test_are_named_in_errors(self, refusal: Callable[..., str], override: str, line: str) -> None:
        assert line in refusal("log: {format: text}\nreadings: {alerts: {open_after: {n: 5}}}", override)

    def test_do_not_reach_into_what_is_no_mapping(self, refusal: Callable[..., str]) -> None:
        line = refusal("log: {level: info}", "log.level.deep=1")
        assert line == "log.level has no keys of its own (--set log.level.deep). Set log.level as a whole."

    def test_the_file_keeps_the_blame_for_its_own_errors(self, refusal: Callable[..., str]) -> None:
        assert "(FILE:log.format)" in refusal("log: {format: yes}", "log.level=debug")


class TestSearch:
    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(config_module, "SEARCH", (Path("config.yaml"), tmp_path / "etc.yaml"))

    def test_order(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert find_config(None) is None
        assert load_config(None) == Config()
        for name in ("etc.yaml", "config.yaml", "variable.yaml", "given.yaml"):
            (tmp_path / name).write_text("")
        monkeypatch.setenv("DETECTOR_CONFIG", "variable.yaml")
        assert find_config(Path("given.yaml")) == find_config("given.yaml") == Path("given.yaml")
        assert find_config(None) == Path("variable.yaml")
        monkeypatch.delenv("DETECTOR_CONFIG")
        assert find_config(None) == Path("config.yaml")
        (tmp_path / "config.yaml").unlink()
        assert find_config(None) == tmp_path / "etc.yaml"

    def test_a_named_file_must_be_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(UserError, match=r"not there \(--config nope\.yaml\)"):
            load_config(Path("nope.yaml"))
        with pytest.raises(UserError, match=r"a directory, not a file \(--config \.\)"):
            load_config(Path())
        monkeypatch.setenv("DETECTOR_CONFIG", "nope.yaml")
        with pytest.raises(UserError, match=r"not there \(\$DETECTOR_CONFIG: nope\.yaml\)"):
            load_config(None)

    def test_what_is_no_configuration_file(self, tmp_path: Path) -> None:
        file = tmp_path / "config.yaml"
        file.write_bytes(b"#" * 1_000_001)
        with pytest.raises(UserError, match="larger than 1 MB"):
            load_config(file)
        file.write_bytes(b"\xff\xfe")
        with pytest.raises(UserError, match="not UTF-8"):
            load_config(file)


class TestSecrets:
    def test_are_read_and_never_shown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "password"
        file.write_text("hunter2\n")
        monkeypatch.setenv("PASSWORD", "hunter3")
        for config, expected in (
            (KafkaConfig(sasl_password_file=file), "hunter2"),
            (KafkaConfig(sasl_password_env="PASSWORD"), "hunter3"),  # noqa: S106
        ):
            secret = config.sasl_password()
            assert secret is not None
            assert secret.get_secret_value() == expected
            assert "hunter" not in repr((config, secret))
        assert KafkaConfig().sasl_password() is None

    def test_that_are_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "empty").write_text("\n")
        (tmp_path / "bytes").write_bytes(b"\xff")
        for name, problem in (("missing", "No such file"), ("empty", "empty"), ("bytes", "not UTF-8")):
            with pytest.raises(UserError, match=problem):
                resolve_secret(tmp_path / name, None, "streams.kafka.sasl_password")
        with pytest.raises(UserError, match=r"\$NOT_SET_ANYWHERE is not set"):
            resolve_secret(None, "NOT_SET_ANYWHERE", "streams.kafka.sasl_password")

    def test_white_space_around_a_token_is_no_part_of_it_and_around_a_password_is(self, tmp_path: Path) -> None:
        file = tmp_path / "secret"
        file.write_text(" hunter2 \n")
        for token in (
            KafkaConfig(sasl_token_file=file).sasl_token(),
            SchemaRegistryConfig(url="http://localhost", token_file=file).token(),
            TargetConfig(name="a", kind="webhook", url="http://localhost", bearer_token_file=file).bearer_token(),
        ):
            assert token is not None
            assert token.get_secret_value() == "hunter2"
        password = KafkaConfig(sasl_password_file=file).sasl_password()
        assert password is not None
        assert password.get_secret_value() == " hunter2 "

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("hunter2\nhunter3", "several lines"),
            ("hunter2\r\n\r\nhunter3\n", "several lines"),
            ("hünter2", "no header can carry"),
            ("hunter2\0", "no header can carry"),
            (" \t", "the token is empty"),
        ],
    )
    def test_a_token_that_no_header_can_carry_is_refused_unseen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, problem: str
    ) -> None:
        file = tmp_path / "token"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=problem) as refused:
            resolve_token(file, None, "a.token")
        assert f"(a.token_file: {file})" in str(refused.value)
        assert "nter" not in str(refused.value)
        if "\0" not in text:
            monkeypatch.setenv("TOKEN", text)
            with pytest.raises(UserError, match=problem) as refused:
                resolve_token(None, "TOKEN", "a.token")
            assert "nter" not in str(refused.value)

    def test_a_variable_that_is_no_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(os.environ, "TOKEN", "\udcff")
        with pytest.raises(UserError, match=r"not UTF-8 text \(a\.secret_env\)"):
            resolve_secret(None, "TOKEN", "a.secret")

    @pytest.mark.parametrize("key", ["schema_registry: {url: ", "sasl_oauth_token_endpoint: "])
    @pytest.mark.parametrize(
        "url", ["http://ann:hunter2@localhost", "http://ann:hun#ter2@localhost", "http://localhost:99999", "http://a b"]
    )
    def test_the_user_of_an_address_is_not_repeated(self, refusal: Callable[..., str], key: str, url: str) -> None:
        if "#" in url:
            url = f'"{url}"'
        line = refusal(f"streams: {{kafka: {{{key}{url}{'}' * key.count('{')}}}}}")
        assert "expected an address such as" in line
        assert "hun" not in line

    @pytest.mark.parametrize("key", ["sasl_password", "sasl_password_env", "ssl_key_file"])
    def test_in_the_wrong_place_are_not_repeated(self, refusal: Callable[..., str], key: str) -> None:
        value = "[hunter-2]" if key == "ssl_key_file" else "hunter-2"
        line = refusal(f"streams: {{kafka: {{{key}: {value}}}}}")
        assert "hunter" not in line

    @pytest.mark.parametrize("value", ["6161", "[hunter]", "{a: hunter}", "hunter2" * 60, '"hünter2"', '" hunter2"'])
    def test_what_is_sent_along_is_not_repeated(self, refusal: Callable[..., str], value: str) -> None:
        target = f"{{name: a, kind: webhook, url: 'http://h/', headers: {{X-Key: {value}}}}}"
        line = refusal(f"notify: {{targets: [{target}]}}")
        assert "nter" not in line
        assert "6161" not in line

    def test_a_key_that_is_wrong_itself(self, refusal: Callable[..., str]) -> None:
        target = "{name: a, kind: webhook, url: 'http://h/', headers: {'': a}}"
        assert "as a key, but `` is written" in refusal(f"notify: {{targets: [{target}]}}")
        assert "as a key, but `` is written" in refusal("streams: {kafka: {new_topics: {settings: {'': a}}}}")

    def test_the_way_to_give_them_is_shown(self, refusal: Callable[..., str]) -> None:
        line = refusal("streams: {kafka: {sasl_password: x}}")
        assert line.endswith("A secret is given as sasl_password_file or sasl_password_env.")


@given(st.integers(0, 36_500 * 86_400 * 1000))
def test_durations_are_written_as_they_are_read(milliseconds: int) -> None:
    ns = milliseconds * 1_000_000
    text = format_duration(ns)
    if len(text) <= 11:  # nine digits and a unit
        assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "5", "5 m", "-5m", "1.5h", "5min", "1h30m", "99999d", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="`"):
        parse_duration(text)


def test_the_schema_accepts_what_we_ship_and_what_we_write() -> None:
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(Config().model_dump_json()), schema)
    assert schema["$defs"]["AlertsConfig"]["properties"]["update_every"]["default"] == "15m"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"readings": {"warmup": "x"}}, schema)


def test_the_schema_knows_what_has_no_meaning_for_frames(load: Load) -> None:
    schema = config_schema()
    as_it_is = {"alerts": {"direction": "both", "min_deviation": {"absolute": 0.0, "relative": 0.0}}}
    jsonschema.validate({"frames": as_it_is}, schema)
    assert load(json.dumps({"frames": as_it_is})) == Config()
    for setting in ({"direction": "above"}, {"min_deviation": {"absolute": 1.0}}):
        jsonschema.validate({"readings": {"alerts": setting}}, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"frames": {"alerts": setting}}, schema)


def test_a_configuration_survives_being_written_and_read() -> None:
    config = Config()
    assert Config.model_validate_json(config.model_dump_json()) == config


@given(st.text(max_size=80) | st.from_regex(r"[a-z]+: [\[{&*!?|>%@`'\"#-]{0,5}[a-z0-9:, ]{0,10}", fullmatch=True))
def test_no_text_is_more_than_a_refusal(text: str) -> None:
    for parse in (yamltext.parse, yamltext.parse_value):
        with contextlib.suppress(yamltext.YamlError):
            assert isinstance(parse(text), yamltext.Tree)
