"""The JSON Schemas of what goes in and out, and of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from detector.wire.alerts import Alert, DeadLetterLine, SensorScores
from detector.wire.incidents import Incident
from detector.wire.readings import MAX_SENSOR_ID
from detector.wire.verdicts import Acknowledgement, VerdictRecord

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of that name, one of `NAMES`. Raises KeyError for another.

    >>> schema("alert")["title"]
    'Alert'
    """
    return _SCHEMAS[name]()


def _alert() -> dict[str, Any]:
    found = _of_struct(Alert, "Alert")
    shown = {"readings": ["window"], "frames": ["heatmap", "frame", "region"]}
    for name in ("window", "heatmap", "frame", "region"):
        found["required"].remove(name)
    found["oneOf"] = [
        {
            "properties": {"kind": {"const": kind}},
            "required": names,
            "not": {
                "anyOf": [{"required": [other]} for others in shown.values() if others is not names for other in others]
            },
        }
        for kind, names in shown.items()
    ]
    return found


def _dead_letter() -> dict[str, Any]:
    return _of_struct(DeadLetterLine, "Dead letter (a line of a directory stream)")


def _score() -> dict[str, Any]:
    return _of_struct(SensorScores, "Scores")


def _verdict() -> dict[str, Any]:
    found = _of_struct(VerdictRecord, "Verdict")
    found["required"] = ["verdict"]
    found["$defs"]["VerdictBody"]["required"] = ["alert_id", "is"]
    return found


def _acknowledgement() -> dict[str, Any]:
    return _of_struct(Acknowledgement, "Acknowledged verdict")


def _incident() -> dict[str, Any]:
    return _of_struct(Incident, "Incident")


def _config() -> dict[str, Any]:
    from detector.config.load import config_schema  # 0.2 s of pydantic, for this one alone

    return config_schema()


def _of_struct(struct: type[msgspec.Struct], title: str) -> dict[str, Any]:
    (described,), definitions = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    top = definitions.pop(described["$ref"].rpartition("/")[2])
    for described in (top, *definitions.values()):
        described["description"] = " ".join(described["description"].split())
        described["required"] = list(described["properties"])  # defaults are written, too
    return {"$schema": _DRAFT, **top, "title": title, **({"$defs": definitions} if definitions else {})}


def _reading() -> dict[str, Any]:
    sensor = {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_SENSOR_ID,
        "description": "The sensor. Without it (or null) the record's key names the sensor.",
    }
    return {
        "$schema": _DRAFT,
        "title": "Reading",
        "description": "One reading, many readings of one sensor in lists, or an array of readings. The names are the "
        "defaults of readings.fields; other keys are ignored.",
        "oneOf": [
            {"$ref": "#/$defs/single"},
            {"$ref": "#/$defs/lists"},
            {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/single"}},
        ],
        "$defs": {
            "sensor_id": {"anyOf": [sensor, {"type": "null"}]},
            "timestamp": {
                "description": "RFC 3339 (a space may stand for the T; no zone means UTC), or an epoch number: below "
                "1e11 seconds, below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds.",
                "anyOf": [{"type": "string"}, {"type": "number"}],
            },
            "value": {"description": "A finite number; null for a missing value.", "type": ["number", "null"]},
            "values": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/value"}},
            "single": {
                "description": "One reading: `value`, or with several channels `values` by name.",
                "type": "object",
                "properties": {
                    "sensor_id": {"$ref": "#/$defs/sensor_id"},
                    "timestamp": {"$ref": "#/$defs/timestamp"},
                    "value": {"$ref": "#/$defs/value"},
                    "values": {
                        "type": "object",
                        "minProperties": 1,
                        "additionalProperties": {"$ref": "#/$defs/value"},
                    },
                },
                "required": ["timestamp"],
                "oneOf": [{"required": ["value"]}, {"required": ["values"]}],
                "not": {"required": ["timestamps"]},
            },
            "lists": {
                "description": "Readings of one sensor: lists of equal length; with several channels one list each.",
                "type": "object",
                "properties": {
                    "sensor_id": {"$ref": "#/$defs/sensor_id"},
                    "timestamps": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/timestamp"}},
                    "values": {
                        "anyOf": [
                            {"$ref": "#/$defs/values"},
                            {
                                "type": "object",
                                "minProperties": 1,
                                "additionalProperties": {"$ref": "#/$defs/values"},
                            },
                        ]
                    },
                },
                "required": ["timestamps", "values"],
                "not": {"anyOf": [{"required": ["timestamp"]}, {"required": ["value"]}]},
            },
        },
    }


def _frame() -> dict[str, Any]:
    camera = {"type": "string", "minLength": 1, "maxLength": MAX_SENSOR_ID}
    return {
        "$schema": _DRAFT,
        "title": "Frame",
        "description": "A camera frame as JSON. On Kafka a record may also hold the picture itself, with the camera as "
        "its key and the rest in its headers; see docs/messages.md. Other keys are ignored.",
        "type": "object",
        "properties": {
            "camera_id": {**camera, "description": "The camera. Without it the record's key names the camera."},
            "sensor_id": {**camera, "description": "Another name for camera_id."},
            "key": {**camera, "description": "Another name for camera_id."},
            "timestamp": {
                "description": "As in a reading. Without it the record's own time counts.",
                "anyOf": [{"type": "string"}, {"type": "number"}],
            },
            "value_base64": {
                "description": "The picture: a PNG or JPEG file, or raw pixels.",
                "type": "string",
                "contentEncoding": "base64",
            },
            "content_type": {
                "description": "image/png and image/jpeg say that the value is no raw pixels, whatever else is given.",
                "type": "string",
            },
            "shape": {
                "description": "Of raw pixels: height, width, and for colour 3.",
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 3},
                ],
            },
            "dtype": {
                "description": "Of raw pixels, little-endian.",
                "enum": ["uint8", "uint16", "float32", "float64"],
            },
        },
        "required": ["value_base64"],
        "dependentRequired": {"shape": ["dtype"], "dtype": ["shape"]},
    }


_SCHEMAS: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "alert": _alert,
    "reading": _reading,
    "frame": _frame,
    "dead-letter": _dead_letter,
    "score": _score,
    "incident": _incident,
    "verdict": _verdict,
    "acknowledgement": _acknowledgement,
    "config": _config,
}
NAMES: Final = tuple(_SCHEMAS)
