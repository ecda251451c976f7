"""The Grafana dashboards, as data; `python -m deploy.generate` writes them as JSON.

`operations` is for whoever keeps the detector running, `detection` for the people who own the sensors.
"""

from __future__ import annotations

from typing import Final

from deploy.panels import Page, Panel, Query, Row, lines, number, quantiles

OPERATIONS: Final = Page(
    "detector-operations",
    "Detector: operations",
    "Is it running, does it keep up, does it commit?",
    [
        Row(
            "Now",
            [
                number("Up", "Processes that answer a scrape", Query("sum(up{JOB})")),
                number("Ready", "Processes whose /readyz is 200", Query("sum(detector_ready{JOB})")),
                number("Sensors", "With state", Query("sum(detector_sensors{JOB})")),
                number(
                    "Warming up",
                    "Without a profile yet: they cannot alert",
                    Query("sum(detector_sensors_warming{JOB})"),
                ),
                number(
                    "Not watched",
                    "Of these no fault would be told; warming up is beside it",
                    Query('sum(detector_sensors_unwatched{JOB, reason!="warming"})'),
                ),
                number(
                    "Behind",
                    "Records that are there and not read",
                    Query("sum(detector_lag_records{JOB})"),
                    unit="short",
                ),
                number(
                    "Loop turned",
                    "Time since the slowest main loop turned",
                    Query("max(time() - detector_loop_last_progress_timestamp_seconds{JOB})"),
                    unit="s",
                ),
                number(
                    "Reload",
                    "1: the newest model and configuration are in use",
                    Query("min(detector_config_last_reload_successful{JOB})"),
                ),
                number("Replay mismatches", "Should be 0 for ever", Query("sum(detector_replay_mismatch_total{JOB})")),
            ],
        ),
        Row(
            "In",
            [
                lines(
                    "Readings",
                    "By what became of them",
                    "cps",
                    Query("sum by (outcome) (rate(detector_readings_total{JOB}[5m]))", "{{outcome}}"),
                ),
                lines(
                    "Frames",
                    "By what became of them",
                    "cps",
                    Query("sum by (outcome) (rate(detector_frames_total{JOB}[5m]))", "{{outcome}}"),
                ),
                lines(
                    "Lag",
                    "Records that are there and not read, by partition",
                    "short",
                    Query("sum by (stream, partition) (detector_lag_records{JOB})", "{{stream}} {{partition}}"),
                ),
                lines(
                    "Rejected",
                    "Elements of records refused, by reason; they are in the dead letters",
                    "cps",
                    Query("sum by (reason) (rate(detector_rejects_total{JOB}[5m]))", "{{reason}}"),
                ),
                lines(
                    "Newest reading",
                    "How far the newest reading of each partition is behind the clock",
                    "s",
                    Query("time() - detector_last_event_timestamp_seconds{JOB}", "{{stream}} {{partition}}"),
                ),
                lines(
                    "Records a poll", "How much the loop gets at once", "short", *quantiles("detector_batch_records")
                ),
            ],
        ),
        Row(
            "Latency",
            [
                lines(
                    "Event to commit",
                    "From a reading's own timestamp to the commit that covers it",
                    "s",
                    *quantiles("detector_event_latency_seconds"),
                ),
                lines(
                    "Broker to commit",
                    "From the broker's timestamp to the commit that covers it (Kafka)",
                    "s",
                    *quantiles("detector_commit_latency_seconds"),
                ),
                lines("Commits", "How long one takes", "s", *quantiles("detector_commit_seconds")),
                lines(
                    "Scoring",
                    "How long the model takes for what one poll brought",
                    "s",
                    *quantiles("detector_scoring_seconds", "kind"),
                ),
                lines(
                    "Windows scored",
                    "By the autoencoder",
                    "cps",
                    Query("sum by (kind) (rate(detector_windows_scored_total{JOB}[5m]))", "{{kind}}"),
                ),
                lines(
                    "Restores",
                    "Time from the assignment of a partition to its first live record",
                    "s",
                    Query(
                        "sum by (instance) (detector_restore_seconds_sum{JOB})"
                        " / (sum by (instance) (detector_restore_seconds_count{JOB}) > 0)",
                        "{{instance}}",
                    ),
                ),
            ],
        ),
        Row(
            "Process",
            [
                lines("Memory", "Resident", "bytes", Query("process_resident_memory_bytes{JOB}", "{{instance}}")),
                lines(
                    "CPU",
                    "Cores in use; one is what one process can use",
                    "none",
                    Query("rate(process_cpu_seconds_total{JOB}[5m])", "{{instance}}"),
                ),
                lines(
                    "Errors survived",
                    "By where they were met",
                    "cps",
                    Query("sum by (stage) (rate(detector_errors_total{JOB}[5m]))", "{{stage}}"),
                ),
                lines(
                    "State stored",
                    "Size as it was last stored",
                    "bytes",
                    Query("sum by (instance) (detector_snapshot_bytes{JOB})", "{{instance}}"),
                ),
                Panel("Models", "In use", "none", [Query("detector_model_info{JOB}")], "table", 8),
                Panel("Versions", "Of the detector", "none", [Query("detector_build_info{JOB}")], "table", 8),
            ],
        ),
    ],
)

DETECTION: Final = Page(
    "detector-detection",
    "Detector: detection",
    "What was found, whether the budget holds, and the sensors named in metrics.sensors.",
    [
        Row(
            "Now",
            [
                number(
                    "Open",
                    "Anomalies open now",
                    Query("sum by (kind) (detector_open_episodes{JOB})", "{{kind}}"),
                    width=6,
                ),
                number(
                    "Opened in the last day",
                    "By severity at opening",
                    Query(
                        'sum by (severity) (increase(detector_alerts_total{event="opened", JOB}[1d]))', "{{severity}}"
                    ),
                    width=6,
                ),
                number(
                    "Budget in use",
                    "Opened over the last day, over what the budget allows; 1 is as asked for",
                    Query("max by (kind) (detector_false_alarm_budget_ratio{JOB})", "{{kind}}"),
                    unit="percentunit",
                    width=6,
                ),
                number(
                    "Clocks set back",
                    "Sensors started again because their clock went back",
                    Query("sum(detector_clock_resets_total{JOB})"),
                    width=6,
                ),
            ],
        ),
        Row(
            "Episodes",
            [
                lines(
                    "Open anomalies",
                    "By kind",
                    "none",
                    Query("sum by (kind) (detector_open_episodes{JOB})", "{{kind}}"),
                ),
                lines(
                    "Messages",
                    "By event and severity",
                    "none",
                    Query(
                        "sum by (event, severity) (increase(detector_alerts_total{JOB}[10m]))", "{{event}} {{severity}}"
                    ),
                ),
                lines(
                    "Budget against reality",
                    "1 is as many episodes as were asked for",
                    "none",
                    Query("max by (kind) (detector_false_alarm_budget_ratio{JOB})", "{{kind}}"),
                    Query("vector(1)", "asked for"),
                ),
            ],
        ),
        Row(
            "Incidents and notifications",
            [
                number("Open incidents", "Of `detector incidents`", Query("sum(detector_open_incidents)"), width=4),
                lines(
                    "Messages about incidents",
                    "By event and severity",
                    "none",
                    Query(
                        "sum by (event, severity) (increase(detector_incidents_total[10m]))", "{{event}} {{severity}}"
                    ),
                    width=7,
                ),
                lines(
                    "Notifications",
                    "Attempts of `detector notify`, by target and what came of them",
                    "none",
                    Query(
                        "sum by (target, outcome) (increase(detector_notifications_total[10m]))",
                        "{{target}} {{outcome}}",
                    ),
                    width=7,
                ),
                lines(
                    "Not delivered",
                    "For how long a target could not be told",
                    "s",
                    Query("max by (target) (detector_notify_undelivered_seconds)", "{{target}}"),
                    width=6,
                ),
            ],
        ),
        Row(
            "Scores",
            [
                Panel(
                    "Scores of readings",
                    "How many rows had which score; 1 is as bad as the worst of training",
                    "none",
                    [
                        Query(
                            'sum by (le) (increase(detector_score_bucket{kind="readings", JOB}[$__rate_interval]))',
                            "{{le}}",
                        )
                    ],
                    "heatmap",
                    12,
                ),
                lines(
                    "Reconstruction errors",
                    "In units of each sensor's variance",
                    "none",
                    *quantiles("detector_reconstruction_error", "kind"),
                    width=12,
                ),
            ],
        ),
        Row(
            "Sensors named in metrics.sensors",
            [
                Panel(
                    "Worst now",
                    "Score over threshold; an episode opens from 1 on",
                    "none",
                    [Query("topk(10, detector_sensor_score{JOB} / detector_sensor_threshold{JOB})", "{{sensor_id}}")],
                    "table",
                    8,
                    True,
                ),
                lines(
                    "Score over threshold",
                    "An episode opens from 1 on",
                    "none",
                    Query(
                        'detector_sensor_score{JOB, sensor_id=~"$sensor"} / '
                        'detector_sensor_threshold{JOB, sensor_id=~"$sensor"}',
                        "{{sensor_id}}",
                    ),
                    width=16,
                    per_sensor=True,
                ),
                lines(
                    "Values against expected",
                    "What came, and what the model expected",
                    "short",
                    Query('detector_sensor_value{JOB, sensor_id=~"$sensor"}', "{{sensor_id}}"),
                    Query('detector_sensor_expected{JOB, sensor_id=~"$sensor"}', "{{sensor_id}} expected"),
                    width=24,
                    per_sensor=True,
                ),
            ],
        ),
    ],
)

PAGES: Final = {"operations": OPERATIONS, "detection": DETECTION}
