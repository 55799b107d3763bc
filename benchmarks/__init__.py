"""Speed and size, each measured beside a named peer or limit in the same run; `python -m benchmarks.NAME --json`."""

from sop_jax.cli.freed_memory import keep_freed_memory

keep_freed_memory()  # as every `sop` command does; peers in processes of their own inherit it
