"""What the process tells over HTTP."""
