"""CSV as people have it: what is recognised, that it is kept, and what cannot be guessed is said."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from detector.cli import options
from detector.config.load import FieldsConfig
from detector.errors import UserError
from detector.streams.base import Batch, Partition, Record
from detector.streams.directory import DirectoryStreams
from detector.streams.inputfiles import source_for
from detector.streams.lines import Start
from detector.times import EARLIEST, SECOND
from detector.wire.csv_form import CsvForm, CsvOptions, form_of, told, with_form
from detector.wire.csv_recognition import Recogniser
from detector.wire.json_readings import ReadingDecoder
from detector.wire.readings import Readings, Reject
from tests.csv_files import FILES, File
from tests.streams.files import Clock, commit_all

ROWS = 60
STREAM = "sensor-readings"


def csv_options(words: Sequence[str]) -> CsvOptions:
    parser = argparse.ArgumentParser()
    options.add_csv_options(parser)
    return options.csv_options(parser.parse_args(list(words)))


def recogniser(said: CsvOptions, *channels: str, **parts: Any) -> Recogniser:
    fields = FieldsConfig.model_validate(parts)
    return Recogniser(fields, channels or ("value",), said, has_sensor=True, interval=None)


def decoder(said: CsvOptions, *channels: str, **parts: Any) -> ReadingDecoder:
    fields = FieldsConfig.model_validate(parts)
    return ReadingDecoder(fields, channels or ("value",), default_sensor="pump", place="pump.csv", csv=said)


def by_rows(form: CsvForm) -> Batch:
    """Two rows without times, of a file of this form."""
    records = [Record(number, None, value) for number, value in enumerate((b"1", b"2"))]
    return Batch(Partition(STREAM, 0), records, 2, with_form(b"value", form))


def by_interval(interval: int | None) -> ReadingDecoder:
    return ReadingDecoder(FieldsConfig(), ("value",), default_sensor="pump", interval=interval, place="pump.csv")


def batches_of(path: Path, said: CsvOptions, *channels: str, chunk: int = 1 << 20, **parts: Any) -> list[Batch]:
    source = source_for(
        Partition(STREAM, 0), path, until_end=True, chunk=chunk, recognise=recogniser(said, *channels, **parts).header
    )
    batches = []
    with contextlib.closing(source):
        source.open(Start(), None)
        while (batch := source.read(7)) is not None:
            batches += [batch] if batch.records else []
    return batches


def rows(found: Sequence[Readings]) -> list[tuple[str, int, float | None]]:
    return [
        (sensor, time, None if math.isnan(value) else value)
        for readings in found
        for sensor, time, (value,) in zip(
            [one for one, count in zip(readings.ids, readings.counts.tolist(), strict=True) for _ in range(count)],
            readings.times.tolist(),
            readings.values.tolist(),
            strict=True,
        )
    ]


def rejects(found: Sequence[Readings]) -> list[Reject]:
    return [reject for readings in found for reject in readings.rejects]


def read(path: Path, *words: str, **parts: Any) -> list[Readings]:
    said = csv_options(words)
    made = decoder(said, **parts)
    return [made.decode(batch) for batch in batches_of(path, said, **parts)]


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "pump.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path: Path, *words: str, **parts: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(path, *words, **parts)
    return str(caught.value).replace(f"{path}", "FILE")


def test_there_are_41_of_them() -> None:
    assert len({file.name for file in FILES}) == len(FILES) == 41


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_says_what_was_written(file: File, tmp_path: Path) -> None:
    path = tmp_path / file.file
    path.write_bytes(file.content(ROWS))
    found = read(path, *file.options)
    assert not rejects(found)
    assert rows(found) == file.readings(ROWS)
    # Whatever pieces it is read in, the same was recognised.
    said = csv_options(file.options)
    small = batches_of(path, said, chunk=11)
    assert {batch.header for batch in small} == {batch.header for batch in batches_of(path, said)}
    assert rows([decoder(said).decode(batch) for batch in small]) == file.readings(ROWS)


@pytest.mark.parametrize("file", [one for one in FILES if one.encoding != "utf-16"], ids=lambda file: file.name)
def test_a_file_that_grows_is_read_as_it_began_also_by_another_process(file: File, tmp_path: Path) -> None:
    whole = file.content(ROWS)
    lines = whole.splitlines(keepends=True)
    path = tmp_path / file.file
    # The last ten rows are rewritten by nobody: they only come later, after a kill.
    path.write_bytes(b"".join(lines[:-10]))
    said = csv_options(file.options)
    found: list[Readings] = []
    headers = set()
    for growth in (b"", b"".join(lines[-10:-5]), b"".join(lines[-5:])):
        with path.open("ab") as out:
            out.write(growth)
        clock = Clock()
        streams = DirectoryStreams(
            {STREAM: path}, {"alerts": tmp_path / "alerts.jsonl"}, tmp_path / "state", 0.0, clock, until_end=True,
            recognisers={STREAM: recogniser(said).header}, sleep=clock.sleep,
        )  # fmt: skip
        streams.open()
        made = decoder(said)
        while not streams.at_end():
            batches = [event for event in streams.poll(0.0) if isinstance(event, Batch)]
            found += [made.decode(batch) for batch in batches]
            headers |= {batch.header for batch in batches if batch.records}
            commit_all(streams, batches)
        streams.close()
    assert rows(found) == file.readings(ROWS)
    assert len(headers) == 1


class TestWhatCannotBeGuessed:
    def test_a_day_that_may_be_a_month(self, tmp_path: Path) -> None:
        path = written(tmp_path, "timestamp,value\n03.03.2026,1\n04.03.2026,2\n")
        assert refused(path) == (
            "`04.03.2026` may be 2026-03-04 (day first) or 2026-04-03 (month first) (FILE: timestamp). "
            "Say which with --time-format day-first or --time-format month-first."
        )
        assert rows(read(path, "--time-format", "month-first"))[1][1] == 1_775_174_400_000_000_000
        assert (
            rows(read(path, timestamp={"path": "timestamp", "format": "day-first"}))[1][1] == 1_772_582_400_000_000_000
        )

    def test_one_day_above_twelve_proves_the_order(self, tmp_path: Path) -> None:
        path = written(tmp_path, "timestamp,value\n03/04/2026,1\n13/04/2026,2\n")
        assert [row[1] // 10**9 for row in rows(read(path))] == [1_775_174_400, 1_776_038_400]

    def test_both_orders(self, tmp_path: Path) -> None:
        assert "some times have the day first" in refused(
            written(tmp_path, "timestamp,value\n13/04/2026,1\n04/13/2026,2\n")
        )

    def test_a_decimal_comma_between_commas(self, tmp_path: Path) -> None:
        text = "timestamp,value\n2026-11-22 10:00:00,71,3\n2026-11-22 10:00:01,71,4\n"
        assert "a comma stands between the columns and within the numbers" in refused(written(tmp_path, text))

    @pytest.mark.parametrize("number", ["1.234,5", "1,234.5", "1 234,5", "1'234.5", "1.234.567", "1\u202f234"])
    def test_marks_between_thousands(self, number: str, tmp_path: Path) -> None:
        path = written(tmp_path, f"timestamp;value\n2026-11-22 10:00:00;{number}\n")
        assert f"marks between thousands, such as `{number}`".replace("\u202f", "?") in refused(path)

    def test_a_thousands_mark_that_comes_later_rejects_its_row(self, tmp_path: Path) -> None:
        lines = [f"{1_795_341_600 + i};{i},5" for i in range(1200)]
        lines[1100] = "1795342700;1.234"
        found = read(written(tmp_path, "timestamp;value\n" + "\n".join(lines) + "\n"))
        assert [(one.reason, one.message) for one in rejects(found)] == [
            ("bad_value", "row 1102: `1.234` is not a finite number")
        ]

    def test_latin_1_is_said(self, tmp_path: Path) -> None:
        path = written(tmp_path, "timestamp,value,°C\n2026-11-22,1,x\n".encode("latin-1"))
        assert refused(path).startswith("this is not UTF-8 text (FILE:1). If it is Latin-1, say so with --encoding")

    def test_an_abbreviated_zone(self, tmp_path: Path) -> None:
        abbreviated = refused(written(tmp_path, "time,value\n2026-03-13 08:00:00 CET,1\n2026-03-13 08:01:00 CET,2\n"))
        assert "end in the abbreviation of a zone, as `2026-03-13 08:00:00 CET` does" in abbreviated
        assert "--zone" in abbreviated

    def test_days_of_a_spreadsheet(self, tmp_path: Path) -> None:
        assert "days since 1900" in refused(written(tmp_path, "time,value\n46348.25,1\n46348.26,2\n"))

    def test_no_header(self, tmp_path: Path) -> None:
        path = written(tmp_path, "2026-11-22T10:00:00Z,71.3\n2026-11-22T10:00:01Z,71.4\n")
        assert refused(path).startswith("the first line has no names but data")

    def test_several_numbers(self, tmp_path: Path) -> None:
        path = written(tmp_path, "time,flow,heat\n2026-11-22,1,2\n")
        assert "no column `value`; the columns are time, flow, heat (FILE:1)" in refused(path)
        assert "--wide sensors takes each as a sensor" in refused(path)

    def test_a_column_of_numbers_without_a_name(self, tmp_path: Path) -> None:
        path = written(tmp_path, "time,,flow\n2026-11-22,1,2\n")
        assert refused(path, "--wide", "sensors") == "column 2 has numbers and no name (FILE:1). Give it a name."

    def test_other_options_than_the_file_was_begun_with(self, tmp_path: Path) -> None:
        path = written(tmp_path, "timestamp,value\n2026-11-22 10:00:00,1\n")
        (batch,) = batches_of(path, csv_options(["--zone", "Asia/Tokyo"]))
        for words in ([], ["--zone", "Europe/Berlin"]):
            with pytest.raises(UserError, match="the file was begun with --zone Asia/Tokyo"):
                decoder(csv_options(words)).decode(batch)

    @pytest.mark.parametrize(("interval", "given"), [(2 * SECOND, "--interval 2s"), (None, "none")])
    def test_another_interval_than_the_file_was_begun_with(self, interval: int | None, given: str) -> None:
        begun = by_rows(CsvForm(1, (0,), interval=SECOND))
        assert by_interval(SECOND).decode(begun).times.tolist() == [EARLIEST, EARLIEST + SECOND]
        with pytest.raises(UserError, match=f"the file was begun with --interval 1s, not with {given} "):
            by_interval(interval).decode(begun)

    def test_a_release_before_did_not_keep_the_interval(self) -> None:
        begun = by_rows(CsvForm(1, (0,)))
        assert by_interval(SECOND).decode(begun).times.tolist() == [EARLIEST, EARLIEST + SECOND]
        with pytest.raises(UserError, match="the file was begun with an --interval, not with none "):
            by_interval(None).decode(begun)

    def test_the_interval_of_a_file_with_times_is_nothing(self) -> None:
        timed = Recogniser(FieldsConfig(), ("value",), CsvOptions(), has_sensor=True, interval=SECOND)
        header = timed.header(b"timestamp,value", [b"2026-11-22T10:00:00Z,1"], "pump.csv")
        found = by_interval(None).decode(replace(by_rows(CsvForm(1, (0,))), header=header, records=[]))
        assert not found.rejects

    def test_the_interval_is_kept_and_is_no_news(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        found = Recogniser(FieldsConfig(), ("value",), CsvOptions(), has_sensor=True, interval=SECOND)
        assert form_of(found.header(b"value", [b"1"], "pump.csv")) == CsvForm(1, (0,), interval=SECOND)
        assert not caplog.records


@pytest.mark.parametrize(
    "words",
    [["--zone", "Europe/Berlin"], ["--time-format", "epoch_ms"], ["--encoding", "utf-8"], ["--wide", "sensors"]],
)
def test_what_is_said_of_csv_is_refused_for_other_records(words: Sequence[str]) -> None:
    json = Batch(Partition(STREAM, 0), [Record(0, None, b'{"sensor_id":"a","timestamp":1795341600,"value":1}')], 1)
    with pytest.raises(
        UserError, match=f"^{' '.join(words)} says how a CSV file is written, and this is none .pump.csv"
    ):
        decoder(csv_options(words)).decode(json)
    with pytest.raises(UserError, match=r"^--interval 1s says how a CSV file is written, and this is none .pump.csv"):
        by_interval(SECOND).decode(json)
    assert len(decoder(CsvOptions()).decode(json).times) == 1
    assert len(by_interval(SECOND).decode(replace(json, records=[])).times) == 0  # whatever comes may be CSV


def test_a_format_that_changes_is_rejected_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [f"{1 + i % 28:02}.11.2026 10:00:00,{i}" for i in range(1100)]
    lines += [f"2026-12-0{1 + i} 10:00:00,{i}" for i in range(3)] + ["30.12.2026 10:00:00,5"]
    found = read(written(tmp_path, "timestamp,value\n" + "\n".join(lines) + "\n"))
    assert [one.reason for one in rejects(found)] == ["bad_timestamp"] * 3
    assert "row 1102: timestamp `2026-12-01 10:00:00` is not written as day, month, year" in rejects(found)[0].message
    assert len(rows(found)) == 1101
    told_of = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage() for record in told_of] == [
        "row 1102 of pump.csv is not written as the rows at the beginning: its time is `2026-12-01 10:00:00`"
    ]


def test_what_was_recognised_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, "Datum;Uhrzeit;Sensor;Wert\n22.11.2026;10:00;a;1,5\n")
    header = batches_of(path, CsvOptions())[0].header or b""
    form = form_of(header)
    assert form is not None
    assert told(header.partition(b"\n")[0], form) == (
        "semicolons between columns; a comma in numbers; time in `Datum` and `Uhrzeit` (day, month, year); "
        "value in `Wert`; sensor in `Sensor`"
    )


def test_the_header_of_a_file_that_an_earlier_release_began_has_no_form_and_is_read_as_then() -> None:
    records = [Record(16, None, b"1795341600,NaN"), Record(31, None, b"1795341601,1")]
    readings = decoder(CsvOptions()).decode(Batch(Partition(STREAM, 0), records, 44, b"timestamp,value"))
    assert [(one.record, one.reason) for one in readings.rejects] == [(0, "bad_value")]
    assert rows([readings]) == [("pump", 1_795_341_601 * 10**9, 1.0)]


class TestWide:
    TEXT = "Time,pump 1,pump 2,note\n2026-11-22 10:00:00,1,10,x\n2026-11-22 10:00:01,,11,y\n2026-11-22 10:00:02,3,z,\n"

    def test_sensors(self, tmp_path: Path) -> None:
        found = read(written(tmp_path, self.TEXT.replace(",z,", ",12,")), "--wide", "sensors")
        t = 1_795_341_600 * 10**9
        s = 10**9
        assert rows(found) == [
            *(("pump 1", t, 1.0), ("pump 2", t, 10.0)),
            *(("pump 1", t + s, None), ("pump 2", t + s, 11.0)),
            *(("pump 1", t + 2 * s, 3.0), ("pump 2", t + 2 * s, 12.0)),
        ]
        assert [readings.elements.tolist() for readings in found] == [[0, 1] * 3]

    def test_a_bad_cell_costs_its_sensor(self, tmp_path: Path) -> None:
        lines = "".join(f"{1_795_341_600 + i},{i},{i}\n" for i in range(1000))
        found = read(written(tmp_path, f"time,a,b\n{lines}1795342600,1,z\n"), "--wide", "sensors")
        assert rows(found)[-1][::2] == ("a", 1.0)
        assert [(one.reason, one.elements) for one in rejects(found)] == [("bad_value", [1])]

    def test_of_several_machines(self, tmp_path: Path) -> None:
        text = "sensor_id;time;flow;heat\nm1;2026-11-22;1;2\nm2;2026-11-22;3;4\n"
        assert [row[0] for row in rows(read(written(tmp_path, text), "--wide", "sensors"))] == [
            "m1/flow", "m1/heat", "m2/flow", "m2/heat",
        ]  # fmt: skip

    def test_channels(self, tmp_path: Path) -> None:
        path = written(tmp_path, "Time;flow;heat;note\n2026-11-22 10:00;1,5;2,5;x\n")
        said = CsvOptions(wide="channels")
        header, row = path.read_bytes().splitlines()
        channels = recogniser(said).numeric(header, [row], "pump.csv")
        assert channels == ("flow", "heat")
        (batch,) = batches_of(path, said, *channels)
        assert decoder(said, *channels).decode(batch).values.tolist() == [[1.5, 2.5]]


def test_columns_may_be_candidates_and_ids_built_of_them(tmp_path: Path) -> None:
    text = "site,machine,when,temp\nnorth,7,2026-11-22 10:00:00,71.3\n,8,2026-11-22 10:00:00,71\n"
    path = written(tmp_path, text)
    parts = {"sensor_id": "{site}/{machine}", "timestamp": ["at", "when"], "value": ["x", "temp"]}
    found = read(path, **parts)
    assert rows(found) == [("north/7", 1_795_341_600 * 10**9, 71.3)]
    assert [one.reason for one in rejects(found)] == ["missing_sensor_id"]
    assert {row[0] for row in rows(read(path, **parts | {"sensor_id": {"constant": "oven"}}))} == {"oven"}


@pytest.mark.parametrize("kind", ["parquet", "feather", "arrow"])
def test_a_table_is_read_like_its_csv(kind: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import feather, ipc, parquet

    file = FILES[0]
    readings = file.readings(ROWS)
    times = pyarrow.array([time // 1000 for _, time, _ in readings], pyarrow.timestamp("us", "UTC"))
    numbers = pyarrow.array([value for *_, value in readings[:-1]] + [None], pyarrow.float64())
    names = pyarrow.array(["pump, left"] * ROWS).dictionary_encode()
    table = pyarrow.table({"Time": times, "sensor_id": names, "value": numbers, "list": [[1]] * ROWS})
    path = tmp_path / f"pump.{kind}"
    if kind == "parquet":
        parquet.write_table(table, path, row_group_size=17)
    elif kind == "feather":
        feather.write_feather(table, str(path))
    else:
        with ipc.new_stream(str(path), table.schema) as out:
            out.write_table(table, 13)
    found = read(path)
    assert not rejects(found)
    assert rows(found) == [("pump, left", time, value) for _, time, value in readings[:-1]] + [
        ("pump, left", readings[-1][1], None)
    ]
    path.write_bytes(b"PAR1, or not")
    assert "this is no table that can be read" in refused(path)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    path = tmp_path / "pump.parquet"
    path.write_bytes(b"PAR1")
    assert "Install it (`pip install 'detector[parquet]'`), or export the file as CSV" in refused(path)
