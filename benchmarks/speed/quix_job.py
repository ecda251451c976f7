"""The same job in Quix Streams, exactly once; run with the Python of an environment of its own.

`quix_job.py ADDRESS TOPIC MODEL SKIP LIMIT SECONDS`: windows in the state store, one ONNX Runtime call a window, an
output record for the few scores that are high. Prints a JSON line with messages and seconds.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Any

import numpy as np
import onnxruntime
from quixstreams import Application  # type: ignore[import-not-found,unused-ignore]

WINDOW = 100


def main() -> int:
    """Run until the limit or the time is reached."""
    address, topic_name, model, skip, limit, seconds = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed_name = session.get_inputs()[0].name
    name = f"quix-{uuid.uuid4().hex[:8]}"
    app = Application(
        broker_address=address,
        consumer_group=name,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=0.1,
        state_dir=f"{model}.{name}",
        loglevel="ERROR",
    )
    count, began, counted_from = 0, time.perf_counter(), 0

    def score(reading: dict[str, Any], state: Any) -> float | None:
        nonlocal count, began, counted_from
        count += 1
        if count <= int(skip):
            began, counted_from = time.perf_counter(), count
        elif count >= int(limit) or (count % 100 == 0 and time.perf_counter() - began > float(seconds)):
            app.stop()
        window = state.get("window", [])
        window.append(reading["value"])
        window = window[-WINDOW:]
        state.set("window", window)
        if len(window) < WINDOW:
            return None
        rows = ((np.array(window, dtype=np.float32) - 50) / 3).reshape(1, WINDOW, 1)
        error = float(np.mean((rows - session.run(None, {feed_name: rows})[0]) ** 2))
        return error if error > 100 else None

    frame = app.dataframe(app.topic(topic_name, value_deserializer="json"))
    frame = frame.apply(score, stateful=True)
    frame = frame[frame.apply(lambda error: error is not None)]
    frame.to_topic(app.topic(f"{name}-out", value_serializer="json"))
    app.run()
    sys.stdout.write(json.dumps({"messages": count - counted_from, "seconds": time.perf_counter() - began}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
