from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from detector.errors import UserError
from detector.streams.directory import DirectoryStreams
from detector.streams.places import default_sensor, directory_streams_for, recording_file, stream_file
from detector.wire.readings import is_sensor_id


def streams_for(directory: Path, **options: Any) -> DirectoryStreams:
    options.setdefault("inputs", ["sensor-readings"])
    return directory_streams_for(directory, alerts="alerts", dead_letters="letters", **options)


def test_the_configured_directory_holds_everything(tmp_path: Path) -> None:
    place = tmp_path / "data"
    streams = streams_for(place, inputs=["sensor-readings", "image-frames"], scores="scores")
    assert streams.inputs == {
        "sensor-readings": place / "sensor-readings.jsonl",
        "image-frames": place / "image-frames.jsonl",
    }
    assert streams.outputs == {stream: place / f"{stream}.jsonl" for stream in ("alerts", "letters", "scores")}
    assert streams.state_dir == place / ".detector"
    assert not place.exists()
    streams.open()
    assert (place / ".detector" / "checkpoint").exists()
    streams.close()


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".jsonl.gz", ".csv.gz"])
def test_a_stream_is_found_under_any_ending(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"sensor-readings{ending}").touch()
    streams = streams_for(Path("elsewhere"), input_option=str(tmp_path))
    assert streams.inputs == {"sensor-readings": tmp_path / f"sensor-readings{ending}"}
    assert stream_file(tmp_path, "sensor-readings") == tmp_path / f"sensor-readings{ending}"
    assert stream_file(tmp_path, "else") is None


def test_two_files_of_one_stream_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sensor-readings.csv").touch()
    (tmp_path / "sensor-readings.jsonl").touch()
    with pytest.raises(UserError, match=r"several files: sensor-readings.jsonl and sensor-readings.csv"):
        streams_for(tmp_path)


def test_one_input_file_is_that_of_the_first_stream(tmp_path: Path) -> None:
    (tmp_path / "pump.csv").touch()
    streams = streams_for(tmp_path, inputs=["a", "b"], input_option=str(tmp_path / "pump.csv"))
    assert streams.inputs == {"a": tmp_path / "pump.csv"}
    assert streams.state_dir == tmp_path / ".detector"


def test_an_output_file_has_its_state_beside_it(tmp_path: Path) -> None:
    output = tmp_path / "new" / "alerts.jsonl"
    streams = streams_for(Path("elsewhere"), output_option=str(output), scores="scores")
    state = tmp_path / "new" / "alerts.jsonl.state"
    assert streams.outputs == {"alerts": output, "letters": state / "letters.jsonl", "scores": state / "scores.jsonl"}
    assert streams.state_dir == state


@pytest.mark.parametrize(
    ("name", "is_file"),
    [("out", False), ("out/", False), ("out.d/", False), ("out.jsonl", True), ("there", False), ("file", True)],
)
def test_what_an_output_name_means(tmp_path: Path, name: str, is_file: bool) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    streams = streams_for(Path("elsewhere"), output_option=f"{tmp_path}/{name}")
    place = tmp_path / name
    assert streams.outputs["alerts"] == (place if is_file else place / "alerts.jsonl")


def test_standard_input_has_no_checkpoint_and_ends(tmp_path: Path) -> None:
    streams = streams_for(Path("elsewhere"), input_option="-", output_option=str(tmp_path / "a.jsonl"))
    assert streams.inputs == {"sensor-readings": "-"}
    assert streams.outputs == {"alerts": tmp_path / "a.jsonl", "letters": "log"}
    assert streams.state_dir is None
    assert streams.until_end


def test_standard_output_has_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    streams = streams_for(tmp_path, input_option=str(tmp_path / "a.csv"), output_option="-")
    assert streams.outputs == {"alerts": "-", "letters": "log"}
    assert streams.state_dir is None
    assert not streams.until_end


def test_standard_output_has_no_room_for_scores(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scores.*--output -"):
        streams_for(tmp_path, output_option="-", scores="anomaly-scores")


def test_standard_input_does_not_mix_with_a_run_that_has_a_checkpoint(tmp_path: Path) -> None:
    streams = streams_for(tmp_path)
    streams.open()
    streams.close()
    with pytest.raises(UserError, match=r"belongs to a run with a checkpoint.*\.detector"):
        streams_for(tmp_path, input_option="-", fresh=True)


@pytest.mark.parametrize("until_end", [False, True])
def test_a_missing_input_is_named(tmp_path: Path, until_end: bool) -> None:
    missing = tmp_path / "nothing.csv"
    with pytest.raises(UserError) as caught:
        streams_for(tmp_path, input_option=str(missing), until_end=until_end)
    assert str(caught.value) == f"the input does not exist ({missing}). Name an existing file or directory."


def test_a_directory_without_the_stream_is_waited_for_unless_it_shall_end(tmp_path: Path) -> None:
    streams = streams_for(tmp_path / "out", input_option=str(tmp_path))
    assert streams.inputs == {"sensor-readings": tmp_path / "sensor-readings.jsonl"}
    with pytest.raises(UserError, match=r"no file of the stream sensor-readings .*sensor-readings\.csv\.gz"):
        streams_for(tmp_path / "out", input_option=str(tmp_path), until_end=True)


def test_a_device_is_no_output(tmp_path: Path) -> None:
    streams = streams_for(tmp_path, output_option=os.devnull)
    with pytest.raises(UserError, match="no regular file"):
        streams.open()
    assert not Path("/dev/null.state").exists()


@pytest.mark.parametrize(
    ("place", "sensor"),
    [
        ("a/pump-7.csv", "pump-7"),
        ("pump.7.csv.gz", "pump.7"),
        ("x.JSONL", "x"),
        ("x.jsonl.gz", "x"),
        ("data.txt", "data"),
        ("data", "data"),
    ],
)
def test_the_sensor_of_a_file(place: str, sensor: str) -> None:
    assert default_sensor(Path(place)) == sensor


@pytest.mark.parametrize(
    ("name", "sensor"),
    [
        (b"p\xfcmp.csv", "p\\xfcmp"),
        ("pümp.csv".encode(), "pümp"),
        (b"a\nb\x7f.csv", "a\\nb\\x7f"),
        (b"\xfc" * 200 + b".csv", "\\xfc" * 64),
    ],
)
def test_the_sensor_of_a_file_is_one_whatever_the_name(name: bytes, sensor: str) -> None:
    assert default_sensor(Path(os.fsdecode(name))) == sensor
    assert is_sensor_id(sensor)


def test_the_sensor_of_standard_input() -> None:
    assert default_sensor("-") == "stdin"


def test_the_file_of_a_recording(tmp_path: Path) -> None:
    file = tmp_path / "s.csv"
    file.touch()
    assert recording_file(file, "other") == file
    assert recording_file(tmp_path, "s") == file
    with pytest.raises(UserError, match="no file of the stream other"):
        recording_file(tmp_path, "other")
    with pytest.raises(UserError, match="does not exist"):
        recording_file(tmp_path / "x", "s")
