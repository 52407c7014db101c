# The two commands: `make demo` and `make test`. Both set everything up first.
PYTHON ?= python3
BIN := .venv/bin
# Most tests wait for a broker, so that more files at once than there are processors pay; each has a node of its own.
AT_ONCE ?= 4
# The quick ones hardly wait, and each process reads all of them first.
QUICK_AT_ONCE ?= 3
# Without what was compiled before, half of the time of `make quick` would go into compiling.
unexport PYTHONDONTWRITEBYTECODE
NEW_ENOUGH = $(PYTHON) -c 'import sys; sys.exit("flow needs Python 3.11 or newer; set PYTHON=python3.x") if sys.version_info < (3, 11) else None'

.PHONY: demo test quick setup lint types unit lock bench clean

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# `make demo DEMO="--forever"` hands options on.
demo: setup
	@$(BIN)/flow demo $(DEMO)

test: setup lint types unit

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

unit: setup
	@deploy/need.sh rabbitmq postgresql chromium systemd
	$(BIN)/python -m pytest --numprocesses $(AT_ONCE) --dist loadfile

# The pure tests and the suite of the development broker: no RabbitMQ, and seconds.
quick: setup
	$(BIN)/python -m pytest --quick --quiet --numprocesses $(QUICK_AT_ONCE) --dist worksteal

# Resolve the dependencies anew (needs uv on the PATH); the locks hold hashes and no addresses.
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
lock:
	$(LOCK) pyproject.toml --all-extras --group dev --output-file requirements.lock
	$(LOCK) pyproject.toml benchmarks/requirements.in --extra fast --output-file benchmarks/requirements.lock

# FastStream needs another aiormq than flow's lock holds, so what is compared has an environment of its own.
# `make bench BENCH="--rounds 1"` hands options on.
bench: .venv-bench/.ready
	@deploy/need.sh rabbitmq
	.venv-bench/bin/python benchmarks/throughput.py $(BENCH)

.venv-bench/.ready: benchmarks/requirements.lock pyproject.toml
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement benchmarks/requirements.lock
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf .venv .venv-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
