from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detector.times import EARLIEST, LATEST, OK, OUT_OF_RANGE, UNREADABLE, instants, parse_time, rfc3339

SECOND = 10**9
MOMENT = 1_795_341_600 * SECOND  # 2026-11-22T10:00:00Z


@pytest.mark.parametrize(
    ("written", "ns"),
    [
        ("2026-11-22T10:00:00Z", MOMENT),
        ("2026-11-22 10:00:00", MOMENT),
        ("2026-11-22t10:00:00z", MOMENT),
        ("2026-11-22T11:30:00+01:30", MOMENT),
        ("2026-11-22T00:00:00-10:00", MOMENT),
        ("2026-11-22T10:00:00.125Z", MOMENT + 125_000_000),
        ("2026-11-22T10:00:00.123456789123Z", MOMENT + 123_456_789),
        (1_795_341_600, MOMENT),
        (1_795_341_600.1, MOMENT + 100_000_000),
        (1_795_341_600_125, MOMENT + 125_000_000),
        (1_795_341_600_125.5, MOMENT + 125_500_000),
        (1_795_341_600_125_001, MOMENT + 125_001_000),
        (1_795_341_600_125_000_001, MOMENT + 125_000_001),
        (99_999_999_999, 99_999_999_999 * SECOND),
        (100_000_000_000, 100_000_000 * SECOND),
        (-1, -SECOND),
    ],
)
def test_one_instant_in_many_forms(written: str | float, ns: int) -> None:
    assert parse_time(written) == ns


@pytest.mark.parametrize(
    "written",
    [
        "",
        "now",
        "2026-11-22",
        "2026-11-22T10:00Z",
        "2026-11-22T10:00:60Z",
        "2026-02-29T10:00:00Z",
        "2026-11-22T10:00:00+24:00",
        "2026-11-22T10:00:00.Z",
        "20261122T100000Z",
        "1795341600",
        "२०२६-11-22T10:00:00Z",
        float("nan"),
        float("inf"),
        True,
    ],
)
def test_what_is_no_instant(written: str | float) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_time(written)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (MOMENT, "2026-11-22T10:00:00Z"),
        (MOMENT + 1_000_000, "2026-11-22T10:00:00.001Z"),
        (MOMENT + 1_000, "2026-11-22T10:00:00.000001Z"),
        (MOMENT + 1, "2026-11-22T10:00:00.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_rfc3339(ns: int, text: str) -> None:
    assert rfc3339(ns) == text
    assert parse_time(text) == ns


@given(st.integers(EARLIEST, LATEST - 1))
def test_writing_and_reading_agree(ns: int) -> None:
    assert parse_time(rfc3339(ns)) == ns


moments = st.datetimes(datetime(1998, 1, 1), datetime(2102, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))
texts = st.builds(
    lambda moment, separator, digits, zone: moment.strftime(f"%Y-%m-%d{separator}%H:%M:%S") + digits + zone,
    moments,
    st.sampled_from("Tt "),
    st.sampled_from(["", ".5", ".125", ".000001", ".123456789", ".1234567891"]),
    st.sampled_from(["", "Z", "z", "+00:00", "-05:30", "+23:59", "+24:00"]),
)
mutated = st.builds(
    lambda text, at, character: text[: at % len(text)] + character + text[at % len(text) + 1 :],
    texts,
    st.integers(0, 40),
    st.characters(codec="utf-8"),
)
numbers = st.integers(-(2**70), 2**70) | st.floats() | st.integers(EARLIEST // 10**9 - 1, LATEST // 10**9 + 1)
scaled = st.builds(
    lambda moment, unit: moment.timestamp() * unit, moments, st.sampled_from([1, 10**3, 10**6, 10**9])
) | st.builds(lambda moment, unit: int(moment.timestamp()) * unit, moments, st.sampled_from([1, 10**3, 10**6, 10**9]))


@given(
    st.lists(texts, max_size=60)
    | st.lists(texts | mutated, min_size=40, max_size=60)
    | st.lists(numbers | scaled, max_size=8)
    | st.lists(texts | mutated | numbers | scaled, max_size=40)
)
@example([4_102_444_799.9999999, 946_684_799.9999999])
@example([2**63, -(2**63), 2**2000, 1])
@example([1_795_341_600_125_000_001, 0.5])
@example(["2000-02-30 00:00:00"] * 30)
@example(["2026-11-22T10:00:00+01:30", "2026-11-22T10:00:00-24:00", "2026-11-22T10:00:00.1234Z"] * 30)
@example(["2026-11-22T10:00:00.125", "2026-11-22T10:00:00,125", "2026-11-22T10:00:00.12é"] * 30)
@example(["2026-11-22T10:00:00.125", "2026-11-22T10:00:00,125", "2099-12-31T23:59:59-00:01"] * 30)
@example(["2026-11-22T10:00:00Z", 1_795_341_600.5, 1_795_341_600_125_000_001, 2**80] * 9)
def test_many_at_once_are_as_one_by_one(raw: list[str | int | float]) -> None:
    times, codes = instants(raw)
    assert len(times) == len(codes) == len(raw)
    for written, time, code in zip(raw, times.tolist(), codes.tolist(), strict=True):
        try:
            expected = parse_time(written)
        except ValueError:
            assert code == UNREADABLE, written
            continue
        if EARLIEST <= expected < LATEST:
            assert (code, time) == (OK, expected), written
        else:
            assert code == OUT_OF_RANGE, written


@pytest.mark.parametrize(
    ("text", "next_second"),
    [
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60.25Z", "2017-01-01T00:00:00.25Z"),
        ("2017-01-01T00:59:60+01:00", "2017-01-01T00:00:00Z"),
        ("2016-12-31 23:59:60", "2017-01-01T00:00:00Z"),
    ],
)
def test_a_leap_second_is_the_first_one_after_midnight(text: str, next_second: str) -> None:
    assert parse_time(text) == parse_time(next_second)
    times, codes = instants([text] * 30)
    assert not codes.any()
    assert set(times.tolist()) == {parse_time(next_second)}


@pytest.mark.parametrize("text", ["2016-12-31T23:58:60Z", "2016-12-31T23:59:61Z", "2016-12-31T23:59:60+01:00"])
def test_any_other_sixtieth_second_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_time(text)


def test_leap_days_of_every_year() -> None:
    first = datetime(2000, 1, 1, tzinfo=UTC)
    days = [first + timedelta(days=number) for number in range(36_525)]
    times, codes = instants([day.strftime("%Y-%m-%dT%H:%M:%SZ") for day in days])
    assert not codes.any()
    assert times.tolist() == [EARLIEST + number * 86_400 * SECOND for number in range(36_525)]
