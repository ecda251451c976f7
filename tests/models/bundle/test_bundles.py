"""Bundles: what is written is what is read, whole or not at all, and nothing that was changed is used."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from detector import __version__
from detector.errors import OperationError, UserError
from detector.models.bundle import bundles, versions
from detector.models.bundle.bundles import FILES, MANIFEST, Bundle, check_fits, load_bundle
from detector.models.bundle.spec import ModelSpec
from detector.models.bundle.versions import activate, active_version, list_versions, resolve, rollback
from detector.models.runtime.onnx import open_runtime
from tests.models.conftest import NOON, MakeBundle, Trained


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def refusal(call: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- writing and reading -------------------------------------------------------------------------------------------


def test_what_was_written_is_read(make_bundle: MakeBundle, models: Path, dense: Trained) -> None:
    written = make_bundle(
        stride=4, open_after=(3, 5), calibration={"a": 1}, training={"sensors": 3}, libraries={"numpy": "2"}
    )
    read = load_bundle(models, written.version)
    assert read == written
    assert (read.name, read.kind, read.window, read.channels, read.shape) == ("dense", "dense", 100, ("a",), (100, 1))
    assert (read.stride, read.scaler, read.activation) == (4, "standard", "linear")
    assert read.manifest.open_after == (3, 5)
    assert read.manifest.detector == __version__
    assert read.manifest.created == "2026-11-22T12:00:00Z"
    assert read.manifest.calibration == {"a": 1}
    assert read.manifest.training == {"sensors": 3}
    assert list(read.profiles()) == list(dense.series)
    assert re.fullmatch(r"20261122T120000Z-dense-[0-9a-f]{6}", read.version)
    assert read.version.endswith(read.digest[:6])
    assert sorted(path.name for path in read.path.iterdir()) == sorted([*FILES, MANIFEST])


def test_the_manifest_is_json_for_people(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    text = (bundle.path / MANIFEST).read_text()
    manifest = json.loads(text)
    assert text.count("\n") > 20
    assert manifest["hidden"] == [32]
    assert set(manifest["files"]) == set(FILES)
    assert manifest["files"]["model.onnx"]["bytes"] == (bundle.path / "model.onnx").stat().st_size


def test_profiles_survive(make_bundle: MakeBundle, models: Path) -> None:
    written: dict[str, Any] = {}
    bundle = make_bundle()
    written = bundle.profiles()
    for sensor_id, profile in load_bundle(models, bundle.version).profiles().items():
        for name in (field.name for field in dataclasses.fields(profile)):
            np.testing.assert_array_equal(getattr(profile, name), getattr(written[sensor_id], name))


def test_a_name_becomes_part_of_the_version(make_bundle: MakeBundle, models: Path) -> None:
    bundle = make_bundle(name="winter-1.2_b")
    assert bundle.version.startswith("20261122T120000Z-winter-1.2_b-")
    assert load_bundle(models, bundle.version).name == "winter-1.2_b"


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a b", "", "ü", "x" * 65, "-x"])
def test_other_names_are_refused(name: str) -> None:
    assert "a model cannot be called" in refusal(bundles.check_name, name)


def test_versions_sort_by_their_time(make_bundle: MakeBundle, models: Path) -> None:
    later = make_bundle(created=NOON + timedelta(days=1))
    first = make_bundle(created=NOON, name="zzz")
    assert list_versions(models) == [first.version, later.version]


def test_other_things_in_the_directory_are_no_versions(make_bundle: MakeBundle, models: Path) -> None:
    bundle = make_bundle()
    activate(models, bundle.version)
    (models / "notes").mkdir()
    (models / "20261122T120000Z-file-123456").write_text("a file")
    assert list_versions(models) == [bundle.version]


# -- nothing half written ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["save_keras", "rename", "save_profiles"])
def test_a_failure_while_writing_leaves_nothing(
    broken: str, make_bundle: MakeBundle, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    changes: dict[str, Any] = {}
    if broken == "save_keras":
        changes["save_keras"] = fail
    elif broken == "rename":
        monkeypatch.setattr(Path, "rename", fail)
    else:
        monkeypatch.setattr(bundles, "save_profiles", fail)
    with pytest.raises(OperationError, match="No space left on device") as caught:
        make_bundle(**changes)
    assert caught.value.exit_code == 1
    assert list(models.iterdir()) == []


CRASH = """
import os, sys
from pathlib import Path
from datetime import datetime, UTC
from detector.models.bundle.bundles import write_bundle
from detector.models.bundle.spec import ModelSpec

write_bundle(
    Path(sys.argv[1]), ModelSpec("dense", ("a",)), save_keras=lambda path: os._exit(9), onnx=b"", profiles={},
    stride=1, open_after=(10, 10), created=datetime.now(UTC),
)
"""


def test_a_crash_while_writing_leaves_no_version(models: Path, make_bundle: MakeBundle) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH, str(models)], check=False, timeout=60)
    assert done.returncode == 9
    assert len(list(models.iterdir())) == 1  # what it was writing, under a hidden name
    assert list_versions(models) == []
    assert "there is no trained model" in refusal(load_bundle, models)
    version = make_bundle().version
    assert list_versions(models) == [version]


def test_a_place_that_cannot_be_written_is_refused(make_bundle: MakeBundle, models: Path) -> None:
    models.write_text("a file")
    assert "cannot write here" in refusal(make_bundle)
    assert "cannot write here" in refusal(versions.check_writable, models / "inner")


def test_a_place_that_can_be_written_is_left_empty(models: Path) -> None:
    versions.check_writable(models / "inner")
    assert list((models / "inner").iterdir()) == []


# -- nothing changed is used ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("where", [0, -1])
def test_a_changed_byte_is_refused_and_named(file: str, where: int, make_bundle: MakeBundle, models: Path) -> None:
    bundle = make_bundle()
    content = bytearray((bundle.path / file).read_bytes())
    content[where] ^= 1
    (bundle.path / file).write_bytes(content)
    line = refusal(load_bundle, models, bundle.version)
    assert line.startswith(f"{file} is not what was written")
    assert str(bundle.path / file) in line


def test_a_changed_manifest_is_refused(make_bundle: MakeBundle, models: Path) -> None:
    bundle = make_bundle()
    path = bundle.path / MANIFEST
    path.write_text(path.read_text().replace('"stride": 1', '"stride": 2'))
    line = refusal(load_bundle, models, bundle.version)
    assert "the manifest does not match" in line
    assert str(path) in line


def test_nothing_is_parsed_before_its_digest_is_right(
    make_bundle: MakeBundle, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle()
    (bundle.path / MANIFEST).write_bytes(b"{")
    monkeypatch.setattr(msgspec.json, "decode", lambda *_, **__: pytest.fail("it was parsed"))
    refusal(load_bundle, models, bundle.version)


@pytest.mark.parametrize("file", [*FILES, MANIFEST])
def test_a_missing_file_is_refused_and_named(file: str, make_bundle: MakeBundle, models: Path) -> None:
    bundle = make_bundle()
    (bundle.path / file).unlink()
    line = refusal(load_bundle, models, bundle.version)
    assert f"the bundle's {file} cannot be read: No such file or directory" in line


def rewrite(bundle: Bundle, **changes: Any) -> str:
    """Replace keys of the manifest and name the directory so that it matches; returns the version."""
    manifest = json.loads((bundle.path / MANIFEST).read_text()) | changes
    content = json.dumps(manifest).encode()
    (bundle.path / MANIFEST).write_bytes(content)
    digest = bundles.hashlib.sha256(content).hexdigest()  # type: ignore[attr-defined]
    path = bundle.path.with_name(f"20261122T120000Z-dense-{digest[:6]}")
    bundle.path.rename(path)
    return path.name


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"manifest": 2}, "manifest version 2, this detector reads 1"),
        ({"kind": "conv"}, "this is a conv model, what is needed here is dense or lstm"),
        ({"scaler": "minmax"}, "output activation linear does not go with scaler minmax"),
        ({"activation": "tanh"}, "output activation tanh does not go with scaler standard"),
        ({"window": "many"}, "this is no bundle manifest: Expected `int`, got `str` - at `$.window`"),
        ({"files": {}}, "the manifest says nothing of model.keras"),
    ],
)
def test_a_manifest_that_says_other_things_is_refused(
    changes: dict[str, Any], says: str, make_bundle: MakeBundle, models: Path
) -> None:
    assert says in refusal(load_bundle, models, rewrite(make_bundle(), **changes))


def test_profiles_that_are_none_are_refused(make_bundle: MakeBundle, models: Path) -> None:
    bundle = make_bundle()
    with (bundle.path / "profiles.npz").open("wb") as file:
        np.savez(file, other=np.arange(3))
    assert "cannot read the profiles" in refusal(bundle.profiles)


def test_without_a_model_the_command_to_run_is_said(models: Path) -> None:
    line = refusal(load_bundle, models)
    assert line == (f"there is no trained model ({models}). Run `detector train --data FILE --out {models}`.")


def test_without_an_active_version_the_command_to_run_is_said(make_bundle: MakeBundle, models: Path) -> None:
    make_bundle()
    assert "no model version is active" in refusal(load_bundle, models)


def test_an_active_version_that_is_gone_is_named(make_bundle: MakeBundle, models: Path) -> None:
    make_bundle()
    (models / "current").write_text("20250101T000000Z-dense-000000\n")
    assert "the model version 20250101T000000Z-dense-000000 is not there" in refusal(load_bundle, models)


@pytest.mark.parametrize("content", ["", "../elsewhere", ".new-123", b"\xff"])
def test_a_spoilt_current_is_refused(content: str | bytes, make_bundle: MakeBundle, models: Path) -> None:
    make_bundle()
    (models / "current").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert str(models / "current") in refusal(load_bundle, models)


# -- fitting the configuration -------------------------------------------------------------------------------------


def test_a_bundle_that_fits(make_bundle: MakeBundle) -> None:
    check_fits(make_bundle(), channels=("a",), stride=1, window=100)
    check_fits(make_bundle(stride=3), channels=["a"], stride=3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"window": 50}, "the model takes windows of shape (100, 1), this configuration makes (50, 1)"),
        ({"channels": ("a", "b")}, "the model takes windows of shape (100, 1), this configuration makes (100, 2)"),
        ({"channels": ("b",)}, "the model was trained on the channels a; this configuration reads b"),
        ({"stride": 5}, "the model's profiles were built with stride 1, this configuration has 5"),
    ],
)
def test_a_bundle_that_does_not_fit(changes: dict[str, Any], says: str, make_bundle: MakeBundle) -> None:
    assert says in refusal(check_fits, make_bundle(), **{"channels": ("a",), "stride": 1, **changes})


def test_a_bundle_for_another_window_length_does_not_fit(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(spec=ModelSpec("dense", ("a",), window=50))
    assert "windows of shape (50, 1), this configuration makes (100, 1)" in refusal(
        check_fits, bundle, channels=("a",), stride=1
    )


# -- versions ------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(make_bundle: MakeBundle) -> list[str]:
    return [make_bundle(created=NOON + timedelta(hours=i), name=name).version for i, name in enumerate("abc")]


def test_rollback_goes_back_through_what_was_active(three: list[str], models: Path) -> None:
    a, b, c = three
    assert active_version(models) is None
    for version in (a, b, a, c):
        assert activate(models, version) == version
        assert active_version(models) == version
        assert load_bundle(models).version == version
    assert [rollback(models) for _ in range(3)] == [a, b, a]
    assert active_version(models) == a
    assert "no other model version was active before" in refusal(rollback, models)
    assert active_version(models) == a


def test_activating_the_active_version_changes_nothing(three: list[str], models: Path) -> None:
    a, b, _ = three
    for version in (a, b, b):
        activate(models, version)
    assert rollback(models) == a


def test_a_crash_between_the_two_files_of_an_activation_harms_nothing(
    three: list[str], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = three
    activate(models, a)
    activate(models, b)
    replace = Path.replace

    def crash(self: Path, target: Path) -> Path:
        if target.name == "current":
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            activate(models, c)
    assert active_version(models) == b
    assert rollback(models) == a
    assert sorted(path.name for path in models.iterdir() if path.is_file()) == ["current", "current.history"]


def test_rollback_to_a_version_that_is_gone(three: list[str], models: Path) -> None:
    a, b, _ = three
    activate(models, a)
    activate(models, b)
    os.rename(models / a, models / "away")
    assert f"the model version active before, {a}, is not there any more" in refusal(rollback, models)
    assert active_version(models) == b


def test_a_version_is_found_by_its_beginning_and_by_its_name(three: list[str], models: Path) -> None:
    a, b, c = three
    assert [resolve(models, wanted) for wanted in (a, "20261122T13", "c")] == [a, b, c]
    line = refusal(resolve, models, "2026")
    assert "2026 may be any of" in line
    assert all(version in line for version in three)
    assert "there is no model version 2025" in refusal(resolve, models, "2025")


def test_a_file_in_place_of_the_directory(models: Path) -> None:
    models.write_text("a file")
    assert list_versions(models) == []
    assert "this is a file, not a directory of models" in refusal(load_bundle, models)


# -- serving -------------------------------------------------------------------------------------------------------

SERVE = """
import sys
from pathlib import Path
import numpy as np
from detector.models.bundle.bundles import check_fits, load_bundle
from detector.models.runtime.onnx import open_runtime

bundle = load_bundle(Path(sys.argv[1]))
check_fits(bundle, channels=("a",), stride=1)
open_runtime(bundle)(np.zeros((3, 100, 1), np.float32))
bundle.profiles()
print(*sorted(name for name in sys.modules if "." not in name))
"""


def test_serving_imports_no_training_library(make_bundle: MakeBundle, models: Path) -> None:
    activate(models, make_bundle().version)
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(models)], capture_output=True, text=True, check=True, timeout=60
    )
    assert set(done.stdout.split()).isdisjoint({"tensorflow", "keras", "onnx", "tf2onnx", "h5py", "kafka"})
    assert done.stderr == ""


def test_bundles_alone_import_no_runtime() -> None:
    script = "import sys, detector.models.bundle.bundles; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stdout.split()).isdisjoint({"tensorflow", "keras", "onnx", "onnxruntime"})


def test_the_runtime_scores_what_the_profiles_were_made_with(make_bundle: MakeBundle, dense: Trained) -> None:
    reconstruct = open_runtime(make_bundle())
    windows = np.zeros((2, 100, 1), dtype=np.float32)
    assert reconstruct(windows).shape == windows.shape
