"""What the columns of a CSV file are, by its header and the first rows: its form."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from detector.config.fields import Constant, FieldsConfig, Source, parts_of, places_of, shown
from detector.wire.csv_form import CsvForm, CsvOptions, told, with_form
from detector.wire.csv_sample import Sample, header_text, separated, texts_of

_TIMES: Final = (
    "timestamp", "time", "ts", "datetime", "date_time", "timestamp_utc", "time_utc", "utc_time", "time_stamp",
    "utc", "_time", "date", "zeit", "zeitstempel", "datum",
)  # fmt: skip
"""Common names of a column of times, the likelier first."""
_SENSORS: Final = ("sensor_id", "sensorid", "sensor", "sensor_name", "tag", "tag_name", "tagname")
_DAYS: Final = ("date", "datum", "day")
_HOURS: Final = ("time", "uhrzeit", "zeit", "time_of_day")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recogniser:
    """Recognises the form of a file, for what the configuration calls its columns.

    `named` says that the sensor was named by the user; `interval` is the time between rows that have none.
    """

    fields: FieldsConfig
    channels: tuple[str, ...]
    options: CsvOptions
    has_sensor: bool
    interval: int | None
    named: bool = False

    def form(self, header: bytes, rows: Sequence[bytes], place: str) -> CsvForm:
        """The form of a file, by its header and some rows. Raises UserError where they do not go together."""
        encoding = self.options.encoding or "utf-8"
        head = header_text(header, encoding, place)
        texts = texts_of(rows, encoding, place)
        separator, names, cells = separated(head, texts, place)
        sample = Sample(tuple(names), cells, place)
        time, sensor = self._time(sample), self._sensor(sample)
        taken = {*time, *(piece for piece in sensor if isinstance(piece, int))}
        values, columns = self._values(sample, taken)
        if not time and self.interval is None:
            raise sample.lacks(
                shown(self.fields.time.path),
                "Name yours in readings.fields.timestamp, or give the time between rows with --interval",
            )
        if not sensor and not self.has_sensor and not values:
            raise sample.lacks(
                shown(self.fields.sensor_id),
                "Name yours in readings.fields.sensor_id, or give the sensor with --sensor",
            )
        decimal = sample.decimal(columns)
        zone = self.options.zone or self.fields.time.zone
        return CsvForm(
            width=len(names),
            values=columns,
            time=time,
            sensor=sensor,
            names=values,
            separator=separator,
            decimal=decimal,
            encoding=encoding,
            time_format=self.options.time_format or self.fields.time.format or sample.time_format(time, decimal, zone),
            zone=zone,
            asked=str(self.options),
            interval=0 if time else self.interval or 0,
        )

    def header(self, header: bytes, rows: Sequence[bytes], place: str) -> bytes:
        """The header with the form of the file behind it. Raises UserError.

        A line of the log tells the form, unless the file is as `docs/messages.md` begins.
        """
        form = self.form(header, rows, place)
        names = [name.strip() for name in header.decode(form.encoding).removeprefix("\ufeff").split(",")]
        plain = CsvForm(form.width, form.values, form.time, form.sensor, interval=form.interval)
        if form != plain or not self._are_configured(form, names):
            _log.info("%s: %s", place, told(header, form))
        return with_form(header, form)

    def _are_configured(self, form: CsvForm, names: Sequence[str]) -> bool:
        """Whether the columns that are read have the names of the configuration."""
        values = self.fields.value if isinstance(self.fields.value, dict) else {"": self.fields.value}
        sources = (self.fields.sensor_id, self.fields.time.path, *values.values(), self.channels)
        known = {place for source in sources for place in places_of(source)}
        columns = (*form.time, *form.values, *(one for one in form.sensor if isinstance(one, int)))
        return all(names[column] in known for column in columns if column < len(names))

    def numeric(self, header: bytes, rows: Sequence[bytes], place: str) -> tuple[str, ...]:
        """The names of the numeric columns but those of time and sensor. Raises UserError."""
        encoding = self.options.encoding or "utf-8"
        head, texts = header_text(header, encoding, place), texts_of(rows, encoding, place)
        _, names, cells = separated(head, texts, place)
        sample = Sample(tuple(names), cells, place)
        return sample.wide({*self._time(sample), *(one for one in self._sensor(sample) if isinstance(one, int))})[0]

    def _time(self, sample: Sample) -> tuple[int, ...]:
        if self.fields.by_record:
            return ()
        found = sample.first_of(self.fields.time.path)
        if found is not None or self.interval is not None:
            return () if found is None else (found,)
        day, hour = sample.common(_DAYS), sample.common(_HOURS)
        if day is not None and hour is not None and not sample.has_dates(hour):
            return day, hour
        found = sample.common(_TIMES)
        return () if found is None else (found,)

    def _sensor(self, sample: Sample) -> tuple[int | str, ...]:
        for one in places_of(self.fields.sensor_id):
            if isinstance(one, Constant):
                return (one.constant,)
            if parts_of(one):
                pieces = sample.template(one)
                if pieces:
                    return pieces
            elif (column := sample.column(one)) is not None:
                return (column,)
        found = None if self.named or self.options.wide else sample.common(_SENSORS)
        return () if found is None else (found,)

    def _values(self, sample: Sample, taken: set[int]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The sensors of a wide file, and the columns of the values."""
        if self.options.wide == "sensors":
            return sample.wide(taken)
        channels, value = self.channels, self.fields.value
        sources: dict[str, Source] = {channel: channel for channel in channels}
        if isinstance(value, dict):
            sources = dict(value)
        elif len(channels) == 1 and self.options.wide is None:
            sources = {channels[0]: (*places_of(value), channels[0])}
        columns = []
        for channel, source in sources.items():
            column = sample.first_of(source)
            if column is None and len(channels) == 1 and self.options.wide is None:
                column = sample.only_value(taken)
            if column is None:
                simple = len(channels) == 1 and not isinstance(value, dict)
                told = shown(value) if simple and not isinstance(value, dict) else shown(source)
                several = "; several are numeric: --wide sensors takes each as a sensor"
                more = several if len(sample.numeric(taken)) > 1 and len(channels) == 1 else ""
                key = "readings.fields.value" if simple or source != channel else "readings.channels"
                raise sample.lacks(told, f"Name yours in {key}{more}")
            columns.append(column)
        return (), tuple(columns)
