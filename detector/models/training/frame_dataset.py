"""From recorded frames, image files or an IDX file to what a model of frames is trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from detector.arrays import F32, I64
from detector.config.settings import LimitsConfig
from detector.errors import UserError
from detector.models.training.dataset import in_order
from detector.models.training.idx import read_idx
from detector.streams.base import Batch
from detector.wire.frames import FrameDecoder, NoFrame
from detector.wire.images import Refused, decode
from detector.wire.readings import Verdict

IMAGE_ENDINGS: Final = (".png", ".jpg", ".jpeg")


@dataclass(slots=True)
class CollectedFrames:
    """The frames of a recording by camera, oldest first, and what was left out of them.

    `records`, `refused`: how many records or files came, and how many of them were no frames, the first of which
    `first_refusal` is about. `resized`: frames of another size than the model's. `late`: of a camera's frames those
    not newer than the one before. `outside`: cut off by `rows`, `since` or `until`.
    """

    cameras: dict[str | None, tuple[I64, F32]] = field(default_factory=dict)
    records: int = 0
    refused: int = 0
    first_refusal: str = ""
    resized: int = 0
    late: int = 0
    outside: int = 0

    @property
    def frames(self) -> int:
        """All frames that can be trained on."""
        return sum(len(times) for times, _ in self.cameras.values())

    def refuse(self, message: str) -> None:
        """Count what is no frame."""
        self.refused += 1
        self.first_refusal = self.first_refusal or message


def collect_frames(
    batches: Iterable[Batch],
    decoder: FrameDecoder,
    *,
    rows: int | None = None,
    since: int | None = None,
    until: int | None = None,
) -> CollectedFrames:
    """Decode a recorded stream of frames and keep what the daemon would score.

    `until` (ns): only frames before it; `since` (ns): only frames at most so much older than the newest one left;
    `rows`: how many of these, from the first, of each camera. A frame not newer than its camera's last one is left out.
    """
    out = CollectedFrames()
    times: dict[str, list[int]] = {}
    pictures: dict[str, list[F32]] = {}
    for batch in batches:
        for number, record in enumerate(batch.records, start=batch.row + 1):
            out.records += 1
            frame = decoder.decode(record)
            if isinstance(frame, NoFrame):
                out.refuse(f"line {number}: {frame.message}")
                continue
            if isinstance(frame, Verdict):
                continue
            if until is not None and frame.time >= until:
                out.outside += 1
                continue
            if rows is not None and since is None and len(times.get(frame.camera, ())) >= rows:
                out.outside += 1  # not kept: a whole topic of frames would fill the memory
                continue
            out.resized += frame.resized
            times.setdefault(frame.camera, []).append(frame.time)
            pictures.setdefault(frame.camera, []).append(frame.pixels)
    newest = max((max(column) for column in times.values()), default=0)
    for camera, column in times.items():
        stamps = np.array(column, dtype=np.int64)
        chosen = np.flatnonzero(stamps >= newest - since) if since is not None else np.arange(len(stamps))
        out.outside += len(stamps) - len(chosen[:rows])
        chosen = chosen[:rows]
        ordered = chosen[in_order(stamps[chosen])]
        out.late += len(chosen) - len(ordered)
        if len(ordered):
            mine = pictures[camera]
            out.cameras[camera] = stamps[ordered], np.stack([mine[i] for i in ordered.tolist()])
    return out


def frames_of_directory(
    directory: Path,
    shape: tuple[int, int],
    limits: LimitsConfig,
    *,
    camera: str | None,
    interval: int,
    rows: int | None,
) -> CollectedFrames:
    """Every image file of a directory, by name, `interval` ns apart: PNG and JPEG."""
    out = CollectedFrames()
    pictures: list[F32] = []
    for path in image_files(directory)[:rows]:
        out.records += 1
        try:
            frame, resized = decode(path.read_bytes(), shape, limits)
        except Refused as refused:
            out.refuse(f"{path.name}: {refused.message}")
        except OSError as error:
            out.refuse(f"{path.name}: {error.strerror}")
        else:
            out.resized += resized
            pictures.append(frame)
    if pictures:
        out.cameras[camera] = np.arange(len(pictures), dtype=np.int64) * interval, np.stack(pictures)
    return out


def image_files(directory: Path) -> list[Path]:
    """The image files of a directory by name. Raises UserError."""
    try:
        return sorted(path for path in directory.iterdir() if path.suffix.lower() in IMAGE_ENDINGS and path.is_file())
    except OSError as error:
        raise UserError(
            f"cannot look into the directory: {error.strerror}", where=str(directory), todo="Give another one"
        ) from None


def frames_of_idx(
    path: Path, shape: tuple[int, int], *, camera: str | None, interval: int, rows: int | None
) -> CollectedFrames:
    """The images of an IDX file, `interval` ns apart. Raises UserError, also for images of another shape."""
    images = read_idx(path)[:rows]
    if images.shape[1:] != shape:
        raise UserError(
            f"the images are of shape {images.shape[1:]}, the model takes {shape}",
            where=str(path),
            todo=f"Set training.image to {list(images.shape[1:])}",
        )
    out = CollectedFrames(records=len(images))
    if len(images):
        times = np.arange(len(images), dtype=np.int64) * interval
        out.cameras[camera] = times, images.astype(np.float32) / np.float32(255)
    return out
