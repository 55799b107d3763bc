"""Speed and size, each measured beside a named peer or limit in the same run; `python -m benchmarks.NAME --json`."""
