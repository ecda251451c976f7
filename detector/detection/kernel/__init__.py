"""The recurrences of many sensors, row after row: compiled where there is a library, else interpreted."""
