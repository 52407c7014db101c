# The two commands: `make demo` and `make test`. Both set everything up first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test setup lint types unit lock bench clean

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("flow needs Python 3.11 or newer; set PYTHON=python3.x") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	@PYTHON=$(BIN)/python deploy/need-rabbitmq.sh
	@$(BIN)/flow demo

test: setup lint types unit

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

unit: setup
	@deploy/need-rabbitmq.sh
	$(BIN)/python -m pytest

# Resolve the dependencies anew (needs uv on the PATH); the lock holds hashes and no addresses.
lock:
	uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements.lock

# FastStream needs another aiormq than flow's lock holds, so what is compared has an environment of its own.
bench: .venv-bench/.ready
	@PYTHON=.venv-bench/bin/python deploy/need-rabbitmq.sh
	.venv-bench/bin/python benchmarks/throughput.py $(BENCH)

.venv-bench/.ready: benchmarks/requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement benchmarks/requirements.lock
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf .venv .venv-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
