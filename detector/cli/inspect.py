"""`detector inspect`: one alert as a picture."""

from __future__ import annotations

import argparse
import base64
import binascii
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from detector.arrays import F32
from detector.cli import options
from detector.errors import UserError, unwritable

if TYPE_CHECKING:
    from detector.config.load import Config
    from detector.detection.framesignal import FrameModel
    from detector.reports.alertpicture import Pictures, ShownAlert
    from detector.streams.base import Record

_PREFIX = 4
"""Letters of an alert's id that are enough to name it, if only one begins so."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "inspect",
        help="draw one alert",
        description="Draw one alert as a PNG: of readings values, expected values, errors, score and threshold, over "
        "all rows that its messages show, or over the last 100 up to one of them (--sequence). Shaded is what the last "
        "message, or that one, knows: from the onset to the last unusual row. Of a camera the frame, its "
        "reconstruction and where they differ: an alert does not carry the frame, so it is looked "
        "up in the stream it came from, and reconstructed by the model that scored it.",
    )
    parser.add_argument("alerts", metavar="ALERTS.jsonl", help="file of alerts, as `run` and `backtest` write it")
    parser.add_argument("--alert", metavar="ID", required=True, help="the alert_id, or its beginning")
    parser.add_argument("-o", "--output", metavar="FILE.png", required=True, help="the picture")
    parser.add_argument(
        "--sequence",
        type=options.count_or_none,
        metavar="N",
        help="which message of the alert (of readings the last one, of a camera the one that opened it)",
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="the frames: a JSON lines file or a directory of streams (streams.directory.path)",
    )


def run(args: argparse.Namespace) -> int:
    """Find the alert, draw it, and print where the picture is."""
    # Here, because `detector inspect --help` needs none of it.
    from detector.reports.alertpicture import draw_frame, draw_readings

    if Path(args.output).suffix.lower() not in ("", ".png"):
        raise UserError("the picture is a PNG", where=f"--output {args.output}", todo="Name it FILE.png")
    messages = _messages(Path(args.alerts), args.alert)
    shown = _chosen(messages, args.sequence, args.alerts)
    if shown.kind == "frames":
        picture = draw_frame(messages, shown, _pictures(shown, args, args.config))
    elif all(message.window is None for message in messages):
        raise UserError(
            f"alert {shown.alert_id} is about silence: there are no readings to draw",
            where=args.alerts,
            todo="Choose another one",
        )
    else:
        picture = draw_readings(messages, shown, whole=args.sequence is None)
    try:
        Path(args.output).write_bytes(picture)
    except OSError as error:
        raise unwritable(error, "the picture", where=args.output, todo="Make room, or name another file") from None
    sys.stdout.write(f"{args.output}\n")
    return 0


def _messages(path: Path, wanted: str) -> list[ShownAlert]:
    """The messages of the one alert whose id is, or begins with, `wanted`, by sequence. Raises UserError."""
    import msgspec

    from detector.reports.alertpicture import ShownAlert

    decode = msgspec.json.Decoder(ShownAlert).decode
    found: dict[str, dict[int, ShownAlert]] = {}
    count = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    alert = decode(line)
                except ValueError as error:
                    if not line.endswith(b"\n"):
                        continue  # being written
                    raise UserError(
                        f"line {number} is no alert: {error}", where=str(path), todo="Give a file of alerts"
                    ) from None
                count += 1
                if alert.alert_id == wanted or (len(wanted) >= _PREFIX and alert.alert_id.startswith(wanted)):
                    found.setdefault(alert.alert_id, {})[alert.sequence] = alert
    except OSError as error:
        raise UserError(
            f"cannot read the alerts: {error.strerror}", where=str(path), todo="Name a file of alerts"
        ) from None
    if len(found) > 1:
        raise UserError(f"{wanted} may be any of {', '.join(sorted(found)[:5])}", where=str(path), todo="Name one")
    if not found:
        raise UserError(
            f"there is no alert `{wanted}` among {count} messages",
            where=str(path),
            todo="Give an alert_id of this file",
        )
    (by_sequence,) = found.values()
    return [by_sequence[sequence] for sequence in sorted(by_sequence)]


def _chosen(messages: list[ShownAlert], sequence: int | None, place: str) -> ShownAlert:
    """The message that is asked for; else the last one, whose estimates are the best.

    Of a camera the first one: it shows the frame that was too bad.
    """
    if sequence is None:
        return messages[0 if messages[0].kind == "frames" else -1]
    for message in messages:
        if message.sequence == sequence:
            return message
    there = ", ".join(str(message.sequence) for message in messages)
    raise UserError(f"the alert has no message {sequence}", where=place, todo=f"Its messages are {there}")


def _pictures(shown: ShownAlert, args: argparse.Namespace, config: Config) -> Pictures:
    """What can be shown of a frame: the heat map the alert has, and the frame and its reconstruction if found."""
    from detector.detection.framesignal import examine
    from detector.reports.alertpicture import Pictures

    heat = _heat(shown, args.alerts)
    try:
        model = _model(shown, config)
        frame = _frame(shown, args, config, model)
    except UserError as error:
        if args.data:
            raise
        return Pictures(heat, missing=f"The frame is not shown: {error.what}. --data names its recording")
    return Pictures(heat, frame, examine(model, frame).reconstruction)


def _heat(shown: ShownAlert, place: str) -> F32:
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(shown.heatmap or "", validate=True)), formats=["PNG"]) as image:
            return np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255)
    except (OSError, binascii.Error, ValueError):
        raise UserError(
            f"the heat map of alert {shown.alert_id} is no picture", where=place, todo="Give a file of alerts"
        ) from None


def _model(shown: ShownAlert, config: Config) -> FrameModel:
    from detector.models.bundle.bundles import load_bundle
    from detector.models.bundle.frame_bundles import open_frame_model
    from detector.models.bundle.spec import FRAME_KINDS

    bundle = load_bundle(config.frames.model, shown.model.version, kinds=FRAME_KINDS)
    return open_frame_model(bundle, config.frames.runtime)


def _frame(shown: ShownAlert, args: argparse.Namespace, config: Config, model: FrameModel) -> F32:
    """The frame the message is about, from the stream it came from. Raises UserError where it is not."""
    from detector.wire.frames import Frame, FrameDecoder, NoFrame

    stream, offset = shown.source.stream, shown.source.last_offset
    if args.data is None and config.streams.backend != "directory":
        raise UserError(f"it is record {offset} of topic {stream}, which is not asked")
    place = Path(args.data) if args.data else config.streams.directory.path
    record = _record(place, stream, offset)
    decoder = FrameDecoder(model.shape, config.frames.limits, default_camera=shown.sensor_id)
    frame = NoFrame("malformed", "no record begins there") if record is None else decoder.decode(record)
    if not isinstance(frame, Frame) or frame.camera != shown.sensor_id:
        found = frame.message if isinstance(frame, NoFrame) else "it is no frame of that camera"
        raise UserError(
            f"the frame of {shown.sensor_id} is not at offset {offset} of {stream}: {found}",
            where=str(place),
            todo="Name the recording the alert was made from",
        )
    return frame.pixels


def _record(place: Path, stream: str, offset: int) -> Record | None:
    from detector.wire.recording import read_recording

    for batch in read_recording(place, stream):
        if batch.next_offset > offset:
            return next((record for record in batch.records if record.offset == offset), None)
    return None
