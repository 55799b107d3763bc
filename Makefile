# `make demo` runs the closed loop, `make test` passes the tests; each makes the environments it needs first.
.PHONY: demo test setup setup-dev reverb-env s3-env lint types benchmarks lock clean

DEMO_ARGS ?=
TEST_ARGS ?=

demo: setup reverb-env
	.venv/bin/sop demo $(DEMO_ARGS)

test: setup-dev reverb-env s3-env
	.venv/bin/python -m pytest -n logical --dist loadfile $(TEST_ARGS)

setup:
	@launch/setup.sh base

setup-dev:
	@launch/setup.sh dev

reverb-env:
	@launch/setup.sh reverb

s3-env:
	@launch/setup.sh s3

lint: setup-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: setup-dev
	.venv/bin/basedpyright

benchmarks: setup-dev reverb-env
	.venv/bin/python -m benchmarks.regression --json
	.venv/bin/python -m benchmarks.main_results --json
	.venv/bin/python -m benchmarks.sweeps --json

lock: setup-dev
	launch/lock.sh

clean:
	rm -rf .venv launch/reverb/.venv launch/object_store/.venv benchmarks/parity_lerobot/.venv build *.egg-info
