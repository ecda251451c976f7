"""Pure arithmetic, without I/O and without a clock: rows to scores to transitions."""
