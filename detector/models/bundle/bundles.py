"""Bundle versions on disk: a model, the profiles of the sensors or cameras it was trained on, and what it is.

A directory of bundles holds one directory a version::

    var/models/readings/
        20261122T101500Z-dense-1a2b3c/   model.keras model.onnx profiles.npz manifest.json
        current                          the active version's name
        current.history                  versions that were active before, oldest first

The manifest carries the digest of each file, and a version's name ends with the first digits of the manifest's own, so
that a changed byte anywhere is noticed before anything is parsed. A version appears by one rename, complete or not
at all, and never changes afterwards.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from detector import __version__
from detector.detection.profile import Profile
from detector.detection.usable import check_usable
from detector.errors import UserError, in_brief
from detector.models.bundle.profiles import load_profiles, read_profiles, save_profiles
from detector.models.bundle.spec import READING_KINDS, FrameSpec, ModelSpec, check_pair
from detector.models.bundle.versions import active_version, as_user_error, flush_directory, list_versions

MANIFEST: Final = "manifest.json"
KERAS_FILE, ONNX_FILE, PROFILES_FILE = "model.keras", "model.onnx", "profiles.npz"
FILES: Final = (KERAS_FILE, ONNX_FILE, PROFILES_FILE)
MANIFEST_VERSION: Final = 1

_DIGITS: Final = 6
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class FileEntry(msgspec.Struct, frozen=True):
    """A file of the bundle as it was written."""

    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What `manifest.json` says.

    `calibration`, `training` and `libraries` are for people; the program rests on the rest. `open_after` is the (n, m)
    of sensors without an override; each profile says for which it was computed. A model of frames has `image`, their
    (height, width), no window and no channels; `hidden` are its filters.
    """

    manifest: int
    name: str
    kind: str
    window: int
    channels: tuple[str, ...]
    stride: int
    scaler: str
    activation: str
    hidden: tuple[int, ...]
    units: int
    image: tuple[int, int] | None = None
    open_after: tuple[int, int]
    created: str
    detector: str
    calibration: dict[str, Any]
    training: dict[str, Any]
    libraries: dict[str, str]
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Bundle:
    """A version on disk whose bytes are what was written."""

    path: Path
    digest: str
    """SHA-256 of the manifest, and through it of every file."""
    manifest: Manifest

    @property
    def version(self) -> str:
        return self.path.name

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def window(self) -> int:
        return self.manifest.window

    @property
    def channels(self) -> tuple[str, ...]:
        return self.manifest.channels

    @property
    def image(self) -> tuple[int, int] | None:
        """Height and width of the frames it takes; None for a model of readings."""
        return self.manifest.image

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one window: rows, channels; of one frame: height, width, 1."""
        return (self.window, len(self.channels)) if self.image is None else (*self.image, 1)

    @property
    def stride(self) -> int:
        return self.manifest.stride

    @property
    def scaler(self) -> str:
        return self.manifest.scaler

    @property
    def activation(self) -> str:
        return self.manifest.activation

    def profiles(self) -> dict[str, Profile]:
        """Read the profiles by sensor id, again at every call. Raises UserError if the file cannot be read."""
        return read_profiles(self.path / PROFILES_FILE, self._load_profiles)

    def _load_profiles(self, path: Path) -> dict[str, Profile]:
        profiles = load_profiles(path)
        check_usable(profiles, len(self.channels))
        return profiles


def write_bundle(
    directory: Path,
    spec: ModelSpec | FrameSpec,
    *,
    save_keras: Callable[[Path], None],
    onnx: bytes,
    profiles: Mapping[str, Profile] | Callable[[Path], None],
    open_after: tuple[int, int],
    created: datetime,
    stride: int = 1,
    name: str | None = None,
    calibration: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    libraries: Mapping[str, str] | None = None,
) -> Bundle:
    """Write a new version into `directory`, which is made if need be, and return it. It is not activated.

    `save_keras` writes the `.keras` file to the path it gets; `name` defaults to the kind and becomes part of the
    version; `profiles`: by sensor id, or what writes the file of profiles to the path it gets, as for frames.
    Everything is written and flushed under a hidden temporary name, then renamed; after a failure nothing
    is left. Raises UserError where the directory cannot be written, OperationError where the disk fails.
    """
    name = check_name(name or spec.kind)
    with as_user_error(directory):
        directory.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".new-", dir=directory))
        try:
            draft.chmod(0o755)
            save_keras(draft / KERAS_FILE)
            (draft / ONNX_FILE).write_bytes(onnx)
            if isinstance(profiles, Mapping):
                save_profiles(draft / PROFILES_FILE, profiles)
            else:
                profiles(draft / PROFILES_FILE)
            manifest = Manifest(
                manifest=MANIFEST_VERSION,
                name=name,
                kind=spec.kind,
                window=0 if isinstance(spec, FrameSpec) else spec.window,
                channels=() if isinstance(spec, FrameSpec) else spec.channels,
                stride=stride,
                scaler=spec.scaler,
                activation=spec.activation,
                hidden=spec.filters if isinstance(spec, FrameSpec) else spec.hidden,
                units=spec.units,
                image=spec.image,
                open_after=open_after,
                created=created.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
                detector=__version__,
                calibration=dict(calibration or {}),
                training=dict(training or {}),
                libraries=dict(libraries or {}),
                files={file: FileEntry(_sha256(draft / file), (draft / file).stat().st_size) for file in FILES},
            )
            content = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
            (draft / MANIFEST).write_bytes(content)
            for file in (*FILES, MANIFEST):
                _flush_file(draft / file)
            flush_directory(draft)
            digest = hashlib.sha256(content).hexdigest()
            stamp = created.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
            path = directory / f"{stamp}-{name}-{digest[:_DIGITS]}"
            draft.rename(path)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        flush_directory(directory)
    return Bundle(path, digest, manifest)


def load_bundle(directory: Path, version: str | None = None, *, kinds: Sequence[str] = READING_KINDS) -> Bundle:
    """Open a version (the active one by default) after checking every byte of it against its digests.

    Raises UserError: no bundle, no active one, a file missing or changed, a manifest of another version, a kind not
    among `kinds`, an activation and a scaler that do not belong together.
    """
    version = version or active_version(directory)
    train = f"Run `detector train{_model_option(kinds)} --data FILE --out {directory}`"
    if version is None:
        if list_versions(directory):
            raise UserError(
                "no model version is active",
                where=str(directory),
                todo=f"Run `detector models activate VERSION --dir {directory}`",
            )
        raise UserError("there is no trained model", where=str(directory), todo=train)
    path = directory / version
    if not path.is_dir():
        raise UserError(
            f"the model version {version} is not there",
            where=str(directory),
            todo=f"Run `detector models activate VERSION --dir {directory}` or `detector train --data FILE`",
        )
    content = _read(path / MANIFEST, train)
    digest = hashlib.sha256(content).hexdigest()
    if not version.endswith(f"-{digest[:_DIGITS]}"):
        raise UserError(
            "the manifest does not match the name of its directory, which ends with its digest",
            where=str(path / MANIFEST),
            todo=f"It was changed or renamed: restore it, or activate another version. {train}",
        )
    manifest = _parse(path / MANIFEST, content)
    for file in FILES:
        _verify(path / file, manifest.files.get(file), train)
    if manifest.kind not in kinds:
        raise UserError(
            f"this is a {manifest.kind} model, what is needed here is {' or '.join(kinds)}",
            where=str(path),
            todo=f"Correct {'readings' if kinds == READING_KINDS else 'frames'}.model",
        )
    check_pair(manifest.activation, manifest.scaler)
    return Bundle(path, digest, manifest)


def bundle_with(directory: Path, digest: str, *, kinds: Sequence[str] = READING_KINDS) -> Bundle:
    """The version in `directory` that has the digest, checked like `load_bundle`. Raises UserError."""
    for version in list_versions(directory):
        if digest.startswith(version.rpartition("-")[2]):
            bundle = load_bundle(directory, version, kinds=kinds)
            if bundle.digest == digest:
                return bundle
    what = "readings" if kinds == READING_KINDS else "frames"
    raise UserError(
        f"{what} have to be run again with the model {digest}, which is not there",
        where=str(directory),
        todo="Put its directory back: it is needed until the state is up to date",
    )


def check_frames_fit(bundle: Bundle, *, open_after: tuple[int, int]) -> None:
    """Raise UserError unless the profiles of a model of frames were made for alerts after these n of m frames."""
    n, m = bundle.manifest.open_after
    if (n, m) != open_after:
        raise UserError(
            f"the model's profiles were built for alerts after {n} of {m} frames, "
            f"this configuration has {open_after[0]} of {open_after[1]}",
            where=str(bundle.path),
            todo=f"Train again (`detector train --data FILE --out {bundle.path.parent}`) "
            f"or set frames.alerts.open_after to n: {n}, of: {m}",
        )


def check_fits(
    bundle: Bundle,
    *,
    channels: Sequence[str],
    stride: int,
    window: int = 100,
) -> None:
    """Raise UserError unless windows made under the configuration are what the bundle was trained on."""
    where = str(bundle.path)
    train = f"Train again (`detector train --data FILE --out {bundle.path.parent}`)"
    shape = (window, len(channels))
    if bundle.shape != shape:
        raise UserError(
            f"the model takes windows of shape {bundle.shape}, this configuration makes {shape}",
            where=where,
            todo=f"{train} or correct readings.channels",
        )
    if bundle.channels != tuple(channels):
        raise UserError(
            f"the model was trained on the channels {', '.join(bundle.channels)}; "
            f"this configuration reads {', '.join(channels)}",
            where=where,
            todo=f"{train} or correct readings.channels",
        )
    if bundle.stride != stride:
        raise UserError(
            f"the model's profiles were built with stride {bundle.stride}, this configuration has {stride}",
            where=where,
            todo=f"{train} or set readings.window.stride to {bundle.stride}",
        )


def check_profiles(
    bundle: Bundle, profiles: Mapping[str, Profile], open_after: Callable[[str], tuple[int, int]]
) -> None:
    """Raise UserError unless each profile's peaks were computed for the (n, m) that its sensor's alerts have now."""
    for sensor_id, profile in profiles.items():
        (n, m), wanted = profile.open_after, open_after(sensor_id)
        if (n, m) != wanted:
            raise UserError(
                f"the model's profile of {sensor_id} was built for alerts after {n} of {m} rows, "
                f"this configuration has {wanted[0]} of {wanted[1]}",
                where=str(bundle.path),
                todo=f"Train again (`detector train --data FILE --out {bundle.path.parent}`) "
                f"or set its open_after to n: {n}, of: {m}",
            )


def _model_option(kinds: Sequence[str]) -> str:
    """What to add to `detector train` for a model of one of `kinds`, where it is not the default."""
    return "" if READING_KINDS[0] in kinds else f" --model {kinds[0]}"


def check_name(name: str) -> str:
    """Return a name that may become part of a directory's name. Raises UserError for any other."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"a model cannot be called {name!r}",
            where="--name",
            todo="Use up to 64 letters, digits, dots, dashes and underscores, a letter or digit first",
        )
    return name


def _parse(path: Path, content: bytes) -> Manifest:
    try:
        version = msgspec.json.decode(content, type=dict[str, Any]).get("manifest")
        if version != MANIFEST_VERSION:
            raise UserError(
                f"the bundle has manifest version {version}, this detector reads {MANIFEST_VERSION}",
                where=str(path),
                todo="Use the detector that wrote it, or train again",
            )
        return msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # bytes that are no UTF-8; lists in lists
        raise UserError(
            f"this is no bundle manifest: {in_brief(error)}", where=str(path), todo="Train the model again"
        ) from None


def _verify(path: Path, entry: FileEntry | None, todo: str) -> None:
    if entry is None:
        raise UserError(f"the manifest says nothing of {path.name}", where=str(path.parent), todo=todo)
    try:
        digest = _sha256(path)
    except OSError as error:
        raise _unreadable(path, error, todo) from None
    if digest != entry.sha256:
        raise UserError(
            f"{path.name} is not what was written: its SHA-256 differs from the manifest's",
            where=str(path),
            todo=f"Restore it, or activate another version. {todo}",
        )


def _read(path: Path, todo: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error, todo) from None


def _unreadable(path: Path, error: OSError, todo: str) -> UserError:
    return UserError(f"the bundle's {path.name} cannot be read: {error.strerror}", where=str(path), todo=todo)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
