"""Bundles that are broken although their digests are right: one clean line, whichever command opens them."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from detector.cli.main import main
from detector.config.load import Config, load_config
from detector.errors import UserError
from detector.models.bundle.bundles import KERAS_FILE, MANIFEST, ONNX_FILE, PROFILES_FILE, Bundle
from detector.models.bundle.spec import FrameSpec, ModelSpec
from detector.models.bundle.versions import activate, rollback
from detector.models.training.architectures import build, save
from detector.service.pipelines import Engine, load_frame_model, load_model, make_engine
from detector.service.reload import Failed, Reloader
from tests.tiny import json_lines, tiny_bundle
from tests.tinycam import SHAPE, tiny_frame_bundle

Damage = Callable[[bytes], bytes]


def damaged(bundle: Bundle, file: str, damage: Damage) -> str:
    """Change a file of the active version and everything that vouches for it; returns the version's new name."""
    content = damage((bundle.path / file).read_bytes())
    (bundle.path / file).write_bytes(content)
    manifest = content if file == MANIFEST else (bundle.path / MANIFEST).read_bytes()
    if file != MANIFEST:
        said = json.loads(manifest)
        said["files"][file] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        manifest = json.dumps(said).encode()
        (bundle.path / MANIFEST).write_bytes(manifest)
    stem = bundle.version.rpartition("-")[0]
    path = bundle.path.rename(bundle.path.with_name(f"{stem}-{hashlib.sha256(manifest).hexdigest()[:6]}"))
    (path.parent / "current").write_text(f"{path.name}\n")
    return path.name


# -- at random -----------------------------------------------------------------------------------------------------


def mutation(seed: int) -> Damage:
    """Cut off, overwrite, flip, take out, put in, or turn round some bytes."""
    rng = random.Random(seed)  # noqa: S311

    def mutate(content: bytes) -> bytes:
        data = bytearray(content)
        at, end = sorted(rng.randrange(len(data)) for _ in range(2))
        match seed % 6:
            case 0:
                del data[at:]
            case 1:
                for _ in range(rng.choice((1, 3, 20))):
                    data[rng.randrange(len(data))] = rng.randrange(256)
            case 2:
                data[at] ^= 1 << rng.randrange(8)
            case 3:
                del data[at : at + rng.randrange(1, 40)]
            case 4:
                data[at:at] = rng.randbytes(rng.randrange(1, 40))
            case _:
                data[at:end] = data[at:end][::-1]
        return bytes(data)

    return mutate


def within(seed: int) -> Damage:
    """The same to one member of an archive that is sound itself."""
    mutate = mutation(seed)

    def inner(content: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
            chosen = seed % len(old.namelist())
            for number, name in enumerate(old.namelist()):
                member = old.read(name)
                new.writestr(name, mutate(member) if number == chosen else member)
        return out.getvalue()

    return inner


@pytest.mark.parametrize("kind", ["readings", "frames"])
@pytest.mark.parametrize(
    ("file", "how"), [(MANIFEST, mutation), (PROFILES_FILE, mutation), (PROFILES_FILE, within), (ONNX_FILE, mutation)]
)
def test_whatever_is_damaged_it_opens_or_is_one_line(
    kind: str, file: str, how: Callable[[int], Damage], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = (tiny_bundle if kind == "readings" else tiny_frame_bundle)(tmp_path / "sound")
    config = load_config(None, [f"{kind}.model={tmp_path / 'damaged'}"])
    load = load_model if kind == "readings" else load_frame_model
    assert refusals(bundle, file, how, lambda: load(config), range(50)) > 10
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["readings", "frames"])
@pytest.mark.parametrize("how", [mutation, within])
def test_whatever_is_damaged_keras_opens_it_or_it_is_one_line(
    kind: str, how: Callable[[int], Damage], tmp_path: Path
) -> None:
    bundle = (tiny_bundle if kind == "readings" else tiny_frame_bundle)(tmp_path / "sound")
    spec = ModelSpec("dense", ("value",), hidden=(2,)) if kind == "readings" else FrameSpec(SHAPE, (2, 2), 4)
    save(build(spec), bundle.path / KERAS_FILE)
    config = load_config(None, [f"{kind}.model={tmp_path / 'damaged'}", f"{kind}.runtime=tensorflow"])
    load = load_model if kind == "readings" else load_frame_model
    assert refusals(bundle, KERAS_FILE, how, lambda: load(config), range(30)) > 10


def refusals(bundle: Bundle, file: str, how: Callable[[int], Damage], load: Callable[[], object], seeds: range) -> int:
    """How many of the damages are refused."""
    found = 0
    for seed in seeds:
        directory = bundle.path.parent.with_name("damaged")
        shutil.copytree(bundle.path, directory / bundle.version)
        damaged(Bundle(directory / bundle.version, bundle.digest, bundle.manifest), file, how(seed))
        said = refusal(load)
        found += said is not None
        assert said is None or (said.isprintable() and len(said) < 600)
        shutil.rmtree(directory)
    return found


def refusal(load: Callable[[], object]) -> str | None:
    try:
        load()
    except UserError as error:
        return str(error)
    return None


# -- by intent, and by command -------------------------------------------------------------------------------------


def garbage(_: bytes) -> bytes:
    return b"something else"


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def mangled(content: bytes) -> bytes:
    return content.replace(b'"dense"', b'"d\xe9nse"', 1)


def nested(content: bytes) -> bytes:
    return content.replace(b'"calibration": {}', b'"calibration": {"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", 1)


def other_type(content: bytes) -> bytes:
    return content.replace(b'"window": 100', b'"window": "many"', 1)


def of_two_channels(content: bytes) -> bytes:
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["center"] = np.repeat(arrays["center"], 2, axis=1)
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def graph(takes: list[str | int], gives: list[str | int], operator: str, **attributes: Any) -> Damage:
    """A model of one operator."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", takes), ("y", gives))]
    made = helper.make_graph([helper.make_node(operator, ["x"], ["y"], **attributes)], "one", ends[:1], ends[1:])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = onnx.ModelProto.SerializeToString(model)
    return lambda _: content


DAMAGES = {
    "mangled UTF-8": (MANIFEST, mangled, "this is no bundle manifest: 'utf-8' codec can't decode"),
    "lists in lists": (MANIFEST, nested, "this is no bundle manifest: maximum recursion depth exceeded"),
    "a word for a number": (MANIFEST, other_type, "this is no bundle manifest: Expected `int`, got `str`"),
    "half a manifest": (MANIFEST, half, "this is no bundle manifest: "),
    "half an archive": (PROFILES_FILE, half, "cannot read the profiles: File is not a zip file"),
    "no archive": (PROFILES_FILE, garbage, "cannot read the profiles: "),
    "an empty file": (PROFILES_FILE, lambda _: b"", "cannot read the profiles: File is not a zip file"),
    "profiles of two channels": (PROFILES_FILE, of_two_channels, "profiles: `center` has the shape (2,"),
    "garbage for a model": (ONNX_FILE, garbage, "ONNX Runtime cannot run this model: "),
    "half a model": (ONNX_FILE, half, "ONNX Runtime cannot run this model: "),
    "windows larger than the memory": (
        ONNX_FILE, graph(["n", 2**40, 1], ["n", 2**40, 1], "Relu"), "takes windows of shape (1099511627776, 1)"
    ),
    "windows of any length": (ONNX_FILE, graph(["n", "m", 1], ["n", "m", 1], "Relu"), "ONNX Runtime cannot run this"),
    "one number a window": (
        ONNX_FILE, graph(["n", 100, 1], ["n", 1, 1], "ReduceMax", axes=[1]), "it makes float32 of shape (2, 1, 1)"
    ),
    "no numbers": (ONNX_FILE, graph(["n", 100, 1], ["n", 100, 1], "Log"), "of some windows are no numbers"),
}  # fmt: skip


@pytest.fixture(params=DAMAGES)
def broken(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The active version in ./models is damaged; what is said of it."""
    monkeypatch.chdir(tmp_path)
    file, damage, says = DAMAGES[request.param]
    damaged(tiny_bundle(Path("models")), file, damage)
    return says


@pytest.mark.parametrize(
    "command", [["check"], ["run", "--input", "in.jsonl", "--output", "-", "--until-end", "--log-format", "json"]]
)
def test_a_damaged_bundle_is_one_line(broken: str, command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    Path("in.jsonl").write_bytes(json_lines(3))
    assert main([*command, "--set", "readings.model=models", "--set", "http.listen=127.0.0.1:0"]) == 2
    out, err = capfd.readouterr()
    assert all(line.startswith("OK  ") for line in out.splitlines())
    *log, last = err.splitlines()
    assert all(json.loads(line)["level"] == "info" for line in log)
    assert last.startswith("detector: error: ")
    assert broken in last


def test_damaged_bundles_are_listed_as_broken_where_the_manifest_is(
    broken: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "list", "--dir", "models"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    _, row = out.splitlines()
    assert row.startswith("*")
    assert (" broken " in row) == ("manifest: " in broken)


def test_a_reload_keeps_the_model_it_has(
    broken: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny_bundle(tmp_path / "sound")

    def make(config: Config) -> Engine:
        return make_engine(config, sensor=None, interval=None, place=None, pulse=lambda: None)

    hangups = iter([1, 1])
    reloader = Reloader(
        make(load_config(None, ["readings.model=sound"])),
        load=lambda: load_config(None, ["readings.model=sound"]),
        make=lambda _: make(load_config(None, ["readings.model=models"])),
        hangups=lambda: next(hangups),
    )
    reloader.look()
    assert isinstance(reloader.take(), Failed)
    (said,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert broken in said.getMessage() + str(vars(said))
    assert capfd.readouterr() == ("", "")
    reloader.look()
    assert reloader.take() is None


def test_a_history_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    first = tiny_bundle(tmp_path, day=1)
    second = tiny_bundle(tmp_path, day=2)
    (tmp_path / "current.history").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"cannot read which models were active before: .*Delete it"):
        rollback(tmp_path)
    with pytest.raises(UserError, match=r"cannot read which models were active before: .*Delete it"):
        activate(tmp_path, first.version)
    (tmp_path / "current.history").unlink()
    assert activate(tmp_path, first.version) == first.version
    assert rollback(tmp_path) == second.version
