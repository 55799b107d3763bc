#!/usr/bin/env bash
# Remakes the hash-locked requirement files from their .in files. The files name packages, versions and hashes, never an address.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() { "${UV:-.venv/bin/uv}" pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header "$@"; }
lock requirements/base.in -o requirements/base.txt
lock requirements/edge.in -c requirements/base.txt -o requirements/edge.txt
lock requirements/base.in requirements/dev.in -c requirements/base.txt -o requirements/dev.txt
lock requirements/base.in requirements/ray.in -c requirements/base.txt -o requirements/ray.txt
lock requirements/base.in requirements/cuda.in -c requirements/base.txt -o requirements/cuda.txt
lock requirements/base.in requirements/tpu.in -c requirements/base.txt -o requirements/tpu.txt
lock launch/object_store/moto.in -o launch/object_store/moto.txt
# The Reverb server exists for Linux on x86-64 and Python 3.11 or older alone, so its lock is for that platform.
"${UV:-.venv/bin/uv}" pip compile -q --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
  --no-emit-index-url --no-header launch/reverb/requirements.in -o launch/reverb/requirements.txt
# LeRobot, for the parity benchmark, needs Python 3.12.
"${UV:-.venv/bin/uv}" pip compile -q --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-header \
  benchmarks/parity_lerobot/requirements.in -o benchmarks/parity_lerobot/requirements.txt
# The fuzzer has wheels for Linux on x86-64.
"${UV:-.venv/bin/uv}" pip compile -q --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
  --no-emit-index-url --no-header benchmarks/fuzz/requirements.in -o benchmarks/fuzz/requirements.txt
