"""How likely a peak is where nothing is wrong."""

from __future__ import annotations

import math

from detector.detection.threshold import PRIOR_SCALE, PRIOR_WEIGHT


def chance(ln_threshold: float, ln_peak: float) -> float:
    """The probability that a healthy sensor reaches such a peak within one budget of rows.

    The threshold is what one peak in a budget is expected to exceed; above it the tail is the one that section 5 of
    docs/detection.md starts with, before peaks of the sensor's own are known.

    >>> round(chance(0.0, 0.0), 3), round(chance(0.0, math.log(3.0)), 3)
    (0.632, 0.056)
    """
    above = max(ln_peak - ln_threshold, 0.0)
    return -math.expm1(-((1.0 + above / (PRIOR_WEIGHT * PRIOR_SCALE)) ** -PRIOR_WEIGHT))
