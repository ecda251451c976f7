"""Settings the configuration knows and this version does not act on: refused, because silence would be a lie."""

from __future__ import annotations

from detector.config import Config, MinDeviation
from detector.errors import UserError


def refuse_unsupported(config: Config) -> None:
    """Raise UserError naming the first key that is set and has no effect yet."""
    readings, alerts = config.readings, config.readings.alerts
    asked = {
        "streams.backend: memory": config.streams.backend == "memory",
        "readings.overrides": bool(readings.overrides),
        "readings.silence_after": readings.silence_after is not None,
        "readings.alerts.direction": alerts.direction != "both",
        "readings.alerts.min_deviation": alerts.min_deviation.absolute > 0 or alerts.min_deviation.relative > 0,
        "frames.alerts.direction": config.frames.alerts.direction != "both",
        "frames.alerts.min_deviation": config.frames.alerts.min_deviation != MinDeviation(),
        "maintenance": bool(config.maintenance),
        "output.scores": config.output.scores is not None,
    }
    for key, is_set in asked.items():
        if is_set:
            raise UserError(f"{key} has no effect in this version", where=key, todo="Remove it from the configuration")
    if not readings.enabled and not config.frames.enabled:
        raise UserError("nothing is enabled", where="readings.enabled", todo="Set it or frames.enabled to true")
