"""How well the product detects, on labelled data, beside published rivals: `python -m benchmarks.quality`."""
