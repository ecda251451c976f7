"""Made-up plants and cameras with labelled faults."""
