"""No reading and no frame can stop the engine: whatever the decoder lets through is judged, and no sensor is set aside.

A sensor that is set aside costs no other; but of finite values none should be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import jsonschema
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detector.arrays import F32, F64, I64
from detector.config.load import FalseAlarms, FramesConfig, MaintenanceConfig, MinDeviation, ReadingsConfig
from detector.detection.framesignal import examine, normal_errors, score_frames
from detector.detection.profile import Scaling
from detector.detection.scorer import Model
from detector.engine.framealerts import heatmap
from detector.engine.frames import FramesPipeline
from detector.engine.output import Output
from detector.engine.readings import ReadingsPipeline
from detector.streams.base import Message, Record
from detector.wire.alerts import decode_alert
from detector.wire.readings import MAX_VALUE
from detector.wire.schemas import schema
from tests import cameras, plant
from tests.framemodels import pattern_network, textured_frames
from tests.fuzz.budget import examples
from tests.pictures import png
from tests.plant import SECOND, START
from tests.reference_rules import Reading

WARMUP = 150
DAY = 86_400 * SECOND
VALIDATE = jsonschema.Draft202012Validator(schema("alert")).validate

# -- readings: what sensors say ------------------------------------------------------------------------------------

Rows = Callable[[np.random.Generator, int, float], F64]
"""Values (n,) of one channel: of a magnitude, up to the largest value that is let through."""

SHAPES: dict[str, Rows] = {
    "healthy": lambda rng, n, size: plant.healthy(rng, n)[:, 0],
    "constant": lambda rng, n, size: np.full(n, size),
    "nothing": lambda rng, n, size: np.zeros(n),
    "noise": lambda rng, n, size: rng.normal(0, 0.1, n) * size,
    "any magnitude": lambda rng, n, size: rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(-320, 150, n),
    "alternating": lambda rng, n, size: np.where(np.arange(n) % 2, size, -size),
    "two regimes": lambda rng, n, size: np.where(np.arange(n) < n // 2, 1.0, size) + rng.normal(0, 1, n),
    "glitch": lambda rng, n, size: np.where(np.arange(n) == n // 3, size, rng.normal(20, 1, n)),
    "glitch in a constant": lambda rng, n, size: np.where(np.arange(n) == n // 3, size, 7.0),
    "steps": lambda rng, n, size: np.repeat(rng.normal(0, 0.1, n) * size, 1 + n // 4)[:n],
    "growing": lambda rng, n, size: np.sign(size) * abs(size) ** np.linspace(0, 1, n),
    "last bits": lambda rng, n, size: np.full(n, size) * (1 - rng.integers(0, 3, n) * 2.0**-52),
    "integers": lambda rng, n, size: rng.integers(-3, 3, n).astype(float),
}  # fmt: skip
SIZES = [1e150, -1e150, 1e149, 1e100, 1e76, 1e30, -1e16, 123456789.1, 1e4, 1.0, -0.0, 1e-9, 1e-100, 5e-324, -1e-310]
"""Of 1e76 the fourth power, and of 1e150 the square, still is a number."""

TIMES: dict[str, Callable[[np.random.Generator, int], I64]] = {
    "regular": lambda rng, n: np.full(n, SECOND),
    "dense": lambda rng, n: np.ones(n, dtype=np.int64),
    "irregular": lambda rng, n: rng.integers(1, 10 * SECOND, n),
    "any": lambda rng, n: (10.0 ** rng.uniform(0, 15, n)).astype(np.int64),
    "equal": lambda rng, n: np.zeros(n, dtype=np.int64),
    "back and forth": lambda rng, n: rng.integers(-20 * SECOND, 25 * SECOND, n),
    "holes": lambda rng, n: np.where(rng.random(n) < 0.1, rng.integers(1, 20, n), 1) * SECOND,
    "set back": lambda rng, n: np.where(np.arange(n) == n // 2, -DAY, SECOND),
    "a year on": lambda rng, n: np.where(np.arange(n) == n // 2, 366 * DAY, SECOND),
    "decades back": lambda rng, n: np.where(np.arange(n) == n // 2, -7000 * DAY, SECOND),
    "decades on": lambda rng, n: np.where(np.arange(n) == n // 2, 15_000 * DAY, SECOND),
}


@dataclass(frozen=True)
class Phase:
    """Some rows of one sensor: what its channels say, when, and which share of the values is missing."""

    rows: int
    shapes: tuple[str, ...]
    sizes: tuple[float, ...]
    times: str
    missing: float


@dataclass(frozen=True)
class Story:
    """What sensors do, and how they are watched."""

    seed: int
    config: ReadingsConfig
    maintenance: tuple[MaintenanceConfig, ...]
    sensors: tuple[tuple[Phase, ...], ...]
    known: bool
    scaler: str
    group: int

    def model(self, version: str = "1") -> Model:
        channels, stride = len(self.config.channels), self.config.window.stride
        model = plant.model_of(channels=channels, stride=stride)
        if self.known:
            values = plant.healthy(np.random.default_rng(1), 300, channels)
            open_after = (self.config.alerts.open_after.n, self.config.alerts.open_after.of)
            profile = plant.profile_of(values, model.reconstruct, stride=stride, open_after=open_after)
            model = replace(model, profiles={"s0": profile})
        return replace(model, scaler=self.scaler, version=version, digest=f"sha256:{version}")

    def pipeline(self, version: str = "1") -> ReadingsPipeline:
        return plant.pipeline_of(self.config, self.model(version), maintenance=self.maintenance)

    def records(self) -> list[Record]:
        rng = np.random.default_rng(self.seed)
        coming = [_readings(f"s{i}", phases, rng) for i, phases in enumerate(self.sensors)]
        turns = rng.permutation(np.repeat(np.arange(len(coming)), [len(one) for one in coming])).tolist()
        queues = [iter(one) for one in coming]
        arrived = [next(queues[turn]) for turn in turns]
        return plant.records_of([arrived[i : i + self.group] for i in range(0, len(arrived), self.group)])


def _readings(sensor: str, phases: Sequence[Phase], rng: np.random.Generator) -> list[Reading]:
    steps = np.concatenate([TIMES[phase.times](rng, phase.rows) for phase in phases])
    times = np.clip(START + np.cumsum(steps), 10**18, 4 * 10**18)
    blocks = []
    for phase in phases:
        columns = [SHAPES[shape](rng, phase.rows, size) for shape, size in zip(phase.shapes, phase.sizes, strict=True)]
        block = np.clip(np.stack(columns, axis=1), -MAX_VALUE, MAX_VALUE)
        block[rng.random(block.shape) < phase.missing] = np.nan
        blocks.append(block)
    cells = np.concatenate(blocks).tolist()
    return [
        Reading(sensor, time, tuple(None if cell != cell else cell for cell in row))
        for time, row in zip(times.tolist(), cells, strict=True)
    ]


@st.composite
def phases(draw: st.DrawFn, channels: int) -> tuple[Phase, ...]:
    """Mostly a warm-up, and what comes after it."""
    lengths = draw(st.sampled_from([170, 200, 40])), *draw(st.lists(st.sampled_from([130, 12]), max_size=2))
    return tuple(
        Phase(
            rows,
            tuple(draw(st.sampled_from(list(SHAPES))) for _ in range(channels)),
            tuple(draw(st.sampled_from(SIZES)) for _ in range(channels)),
            draw(st.sampled_from([*["regular"] * len(TIMES), *TIMES])),
            draw(st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.1, 1.0])),
        )
        for rows in lengths
    )


OVERRIDES: list[dict[str, Any]] = [
    {"match": "s0", "alerts": {"direction": "above", "min_deviation": {"absolute": 0.5}}},
    {"match": "*", "alerts": {"direction": "below", "min_deviation": {"relative": 1e6}}},
    {"match": "s1", "alerts": {"open_after": {"n": 2, "of": 12}, "critical_ratio": 1.0, "close_after": 1}},
    {"match": "s[02]", "alerts": {"min_deviation": {"absolute": 1e-300, "relative": 1e-9}}, "window": {"max_fill": 50}},
    {"match": "s2", "alerts": {"false_alarms": {"per": "300 readings"}}, "silence_after": "3s"},
]


BUDGETS = [None, plant.per_readings(300), plant.per_readings(10**6), FalseAlarms(per="10m"), FalseAlarms(per="year")]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    channels = draw(st.sampled_from([1, 1, 2, 3]))

    def ns(*seconds: float | None) -> Any:
        chosen = draw(st.sampled_from(seconds))
        return None if chosen is None else int(chosen * SECOND)

    config = plant.readings_config(
        channels=channels,
        warmup=WARMUP,
        false_alarms=draw(st.sampled_from(BUDGETS)),
        open_after=draw(st.sampled_from([(10, 10), (1, 1), (2, 3)])),
        window={
            "allowed_lateness": ns(0, 0, 6),
            "max_gap": ns(None, 4, 10**7),
            "max_fill": draw(st.sampled_from([0, 5, 50])),
            "stride": draw(st.sampled_from([1, 1, 3])),
        },
        silence_after=ns(None, 2, 86_400),
        idle_eviction=ns(None, 100, 86_400),
        update_every=ns(None, 2, 60),
        max_duration=ns(None, 9, 86_400),
        close_after=draw(st.sampled_from([1, 20])),
        critical_ratio=draw(st.sampled_from([1.0, 2.0])),
        direction=draw(st.sampled_from(["both", "above", "below"])),
        min_deviation=draw(st.sampled_from([MinDeviation(), MinDeviation(absolute=0.6, relative=0.1)])),
        overrides=draw(st.lists(st.sampled_from(OVERRIDES), max_size=2)),
    )  # fmt: skip
    window = st.builds(
        plant.maintenance, st.sampled_from(["*", "s0"]), st.integers(0, 200), st.sampled_from([210, 300, 10**6])
    )
    return Story(
        seed=draw(st.integers(0, 2**16)),
        config=config,
        maintenance=tuple(draw(st.lists(window, max_size=2))),
        sensors=tuple(draw(phases(channels)) for _ in range(draw(st.integers(1, 2)))),
        known=draw(st.booleans()),
        scaler=draw(st.sampled_from(get_args(Scaling))),
        group=draw(st.sampled_from([1, 5, 40])),
    )


def check(output: Output) -> list[Message]:
    """The messages of an output in which nothing failed and every number is one."""
    assert not output.failures, output.failures[0].traceback
    assert not output.internal, output.internal[0]
    assert not output.rejected
    for numbers in (*output.scores, *output.errors):
        assert np.isfinite(numbers).all()
    assert np.isfinite(output.allowed)
    return output.alerts


def check_alerts(messages: Sequence[Message]) -> None:
    """They follow the schema, and an episode's messages are counted from its opening on."""
    following: dict[str, int] = {}
    for message in messages:
        VALIDATE(json.loads(message.value))
        alert = decode_alert(message.value)
        assert alert.sequence == following.get(alert.alert_id, 0)
        assert (alert.event == "opened") == (alert.sequence == 0)
        following[alert.alert_id] = alert.sequence + 1


@examples(8)
@given(stories(), st.lists(st.floats(0, 1), max_size=5), st.floats(0, 1))
def test_readings(story: Story, cuts: list[float], restart: float) -> None:
    records = story.records()
    whole = story.pipeline()
    expected = [alert for batch in plant.batches_of(records) for alert in check(whole.process(batch))]
    check_alerts(expected)

    pipeline = story.pipeline()
    found: list[Message] = []
    for batch in plant.batches_of(records, [int(cut * len(records)) for cut in (*cuts, restart)]):
        found += check(pipeline.process(batch))
        if batch.next_offset > records[int(restart * (len(records) - 1))].offset:
            stored, pipeline = pipeline.snapshot(), story.pipeline()
            pipeline.restore(stored)
    assert found == expected
    # From which record on a sensor takes part in a replay differs, and counts no more once it is over.
    again, untouched = story.pipeline(), story.pipeline()
    again.restore(pipeline.snapshot())
    untouched.restore(whole.snapshot())
    assert again.snapshot() == untouched.snapshot()
    assert len(pipeline.overview([], 5).worst) <= 5


@examples(6)
@given(stories(), st.floats(0, 1))
def test_readings_over_a_switch_to_another_model(story: Story, switch: float) -> None:
    records = story.records()
    pipeline = story.pipeline()
    first, *rest = plant.batches_of(records, [int(switch * len(records))])
    alerts = check(pipeline.process(first))
    another = story.pipeline("2")
    another.restore(pipeline.snapshot())
    for batch in rest:
        alerts += check(another.process(batch))
    check_alerts(alerts)


# -- frames --------------------------------------------------------------------------------------------------------

PICTURES: dict[str, Callable[[np.random.Generator, int, tuple[int, int]], F32]] = {
    "healthy": lambda rng, n, shape: textured_frames(n, shape, seed=int(rng.integers(100))),
    "black": lambda rng, n, shape: np.zeros((n, *shape), np.float32),
    "white": lambda rng, n, shape: np.ones((n, *shape), np.float32),
    "grey": lambda rng, n, shape: np.full((n, *shape), rng.random(), np.float32),
    "noise": lambda rng, n, shape: rng.random((n, *shape), np.float32),
    "flicker": lambda rng, n, shape: (
        np.zeros((n, *shape), np.float32) + (np.arange(n) % 2).astype(np.float32)[:, None, None]
    ),
    "salt and pepper": lambda rng, n, shape: rng.integers(0, 2, (n, *shape)).astype(np.float32),
    "barely there": lambda rng, n, shape: np.full((n, *shape), 1e-45, np.float32),
    "one flash": lambda rng, n, shape: (
        np.where(np.arange(n) == n // 2, 1, 0)[:, None, None] + np.zeros((n, *shape), np.float32)
    ),
}
FRAME_SHAPES = [cameras.SHAPE, cameras.SHAPE, (1, 1), (1, 40), (30, 2), (97, 61)]


@dataclass(frozen=True)
class Show:
    """Some frames of one camera: what they show, how large they are, in which form they come, and when."""

    frames: int
    picture: str
    shape: tuple[int, int]
    form: str
    times: str


def _frame_record(camera: str, pixels: F32, time: int, form: str) -> Record:
    if form == "png":
        return Record(
            0, camera.encode(), png((pixels * 255).astype(np.uint8)), None, [("timestamp", str(time).encode())]
        )
    white = {"uint8": 255, "uint16": 65535}.get(form, 1)
    shown = (pixels.astype(np.float64) * white).astype(form)
    headers = [("shape", ",".join(map(str, shown.shape))), ("dtype", form), ("timestamp", str(time))]
    return Record(0, camera.encode(), shown.tobytes(), None, [(name, text.encode()) for name, text in headers])


def _frame_records(shows: Sequence[Sequence[Show]], seed: int) -> list[Record]:
    rng = np.random.default_rng(seed)
    queues = []
    for i, parts in enumerate(shows):
        steps = np.concatenate([TIMES[show.times](rng, show.frames) for show in parts])
        times = iter(np.clip(START + np.cumsum(steps), 10**18, 4 * 10**18).tolist())
        queues.append(
            [
                _frame_record(f"c{i}", pixels, next(times), show.form)
                for show in parts
                for pixels in PICTURES[show.picture](rng, show.frames, show.shape).astype(np.float32)
            ]
        )
    turns = rng.permutation(np.repeat(np.arange(len(queues)), [len(one) for one in queues])).tolist()
    left = [iter(one) for one in queues]
    return cameras.numbered([next(left[turn]) for turn in turns])


show_parts = st.builds(
    Show,
    frames=st.sampled_from([170, 40]),
    picture=st.sampled_from(list(PICTURES)),
    shape=st.sampled_from(FRAME_SHAPES),
    form=st.sampled_from(["png", "float32", "float64", "uint8", "uint16"]),
    times=st.sampled_from([*["regular"] * len(TIMES), *TIMES]),
)
frame_configs = st.builds(
    cameras.frames_config,
    false_alarms=st.sampled_from([None, plant.per_readings(300), FalseAlarms(per="year")]),
    open_after=st.sampled_from([(3, 5), (1, 1)]),
    idle_eviction=st.sampled_from([None, 100 * SECOND]),
    update_every=st.sampled_from([None, 2 * SECOND]),
    max_duration=st.sampled_from([None, 9 * SECOND, DAY]),
    close_after=st.sampled_from([1, 20]),
)


@examples(15)
@given(
    st.lists(st.lists(show_parts, min_size=1, max_size=3), min_size=1, max_size=2),
    frame_configs,
    st.booleans(),
    st.lists(st.floats(0, 1), max_size=4),
    st.integers(0, 2**16),
)
def test_frames(shows: list[list[Show]], config: FramesConfig, known: bool, cuts: list[float], seed: int) -> None:
    records = _frame_records(shows, seed)
    model = cameras.model_of("c0") if known else cameras.model_of()

    def played(pipeline: FramesPipeline, cuts: Sequence[int]) -> list[Message]:
        found = [alert for batch in cameras.batches_of(records, cuts) for alert in check(pipeline.process(batch))]
        while pipeline.pending:
            found += check(pipeline.advance())
        return found

    whole, parts = cameras.pipeline_of(config, model), cameras.pipeline_of(config, model)
    expected = played(whole, ())
    check_alerts(expected)
    assert played(parts, [int(cut * len(records)) for cut in cuts]) == expected
    assert parts.snapshot() == whole.snapshot()


@examples(10)
@given(st.sampled_from(list(PICTURES)), st.sampled_from(list(PICTURES)), st.sampled_from(FRAME_SHAPES))
def test_errors_measured_on_pictures_of_any_kind_are_numbers(normal: str, shown: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    network = pattern_network(shape)
    model = replace(
        cameras.model_of(), shape=shape, reconstruct=network,
        normal=normal_errors(network, PICTURES[normal](rng, 150, shape).astype(np.float32)),
    )  # fmt: skip
    frames = PICTURES[shown](rng, 20, shape).astype(np.float32)
    assert np.isfinite(score_frames(model, frames)).all()
    examined = examine(model, frames[-1])
    assert np.isfinite(list(examined.summary.values())).all()
    assert heatmap(examined.heat)
