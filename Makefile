# The two commands of a fresh machine are `make demo` and `make test`; `make help` lists the others.
# Each makes its own environment under .venvs/ and makes it again only when what it is made of changes.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

TEST := .venvs/test
DEMO := .venvs/demo
WHEEL := .venvs/wheel
DIST := .venvs/dist

# Branch coverage of the whole package that the tests must reach, in per cent.
COVERAGE_FLOOR ?= 93
# So many tests run at a time: half of them wait for something. No test may care how fast the machine is.
WORKERS ?= 2
# The virtual machine is emulated: on two idle cores its tests take four minutes, with neighbours longer.
RDMA_DEADLINE_S ?= 900

# What an environment is made of; the modules with a .pxd are compiled where there is a C compiler.
COMPILED := $(wildcard frieda/wire/*.pxd frieda/transports/shm/*.pxd)
MADE_OF := pyproject.toml setup.py .ci/venv $(COMPILED) $(COMPILED:.pxd=.py)

.PHONY: help test demo lint types unit test-rdma thorough chaos package bench-smoke peers clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

test: lint types unit test-rdma package bench-smoke  ## run every check: lint, types, tests, RDMA, wheel, benchmarks
	@echo
	@echo "All passed:"
	@echo "  ruff check, ruff format --check"
	@echo "  mypy --strict"
	@echo "  $$(cat $(TEST)/tests-passed)"
	@sed 's/^/  RDMA in a virtual machine: /' $(TEST)/rdma-passed
	@echo "  wheel and sdist built; the wheel installed alone, and frieda demo --quick ran from it"
	@echo "  one short iteration of every benchmark"

demo: $(DEMO)/made  ## see it work: a broker, a real file through it and back, a benchmark
	$(DEMO)/bin/frieda demo

lint: $(TEST)/made  ## ruff: rules and format
	@echo "== ruff"
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .

types: $(TEST)/made  ## mypy --strict
	@echo "== mypy"
	$(TEST)/bin/mypy

unit: $(TEST)/made  ## the tests, with coverage
	@echo "== tests"
	@rm -f $(TEST)/tests-passed
	$(TEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term --cov-fail-under=$(COVERAGE_FLOOR) \
		| tee $(TEST)/tests-output
	@grep -E '^=+ .*passed.* =+$$' $(TEST)/tests-output | tr -d '=' | sed 's/^ *//; s/ *$$//' \
		> $(TEST)/tests-passed

# Real verbs on soft-RoCE. Where no machine can run it says SKIPPED and why, and fails only with CI=true.
test-rdma: $(TEST)/made  ## verbs:// against the kernel's soft-RoCE, in a virtual machine of its own
	@echo "== RDMA, in a virtual machine (about four minutes)"
	@rm -f $(TEST)/rdma-passed
	$(TEST)/bin/python tests/rdma_vm/machine.py --deadline-s $(RDMA_DEADLINE_S) -- \
		tests/rdma_vm/guest-tests $(TEST)/bin/python | tee $(TEST)/rdma-output
	@grep -E '^SKIPPED: no soft-RoCE|^verbs : tcp|^[0-9]+ passed' $(TEST)/rdma-output > $(TEST)/rdma-passed

# FRIEDA_EFFORT: times the examples of a property. The others: see tests/faults/test_kill.py and test_resources.py.
thorough: $(TEST)/made  ## the same tests with far more examples, crashes and load (an hour)
	@echo "== tests, thoroughly"
	FRIEDA_EFFORT=$${FRIEDA_EFFORT:-20} FRIEDA_KILL_ROUNDS=$${FRIEDA_KILL_ROUNDS:-200} \
		FRIEDA_MEMORY_MIB=$${FRIEDA_MEMORY_MIB:-1024} \
		$(TEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal --timeout 3600

# Each schedule follows from its seed; FIRST_SEED=N SCHEDULES=1 runs one again.
chaos: $(TEST)/made  ## replication under 10,000 schedules of faults, in simulation (ten minutes)
	@echo "== replication in simulation"
	$(TEST)/bin/python -m frieda.testing.simulation.chaos --schedules $${SCHEDULES:-10000} --first $${FIRST_SEED:-0}

package: $(TEST)/made  ## build wheel and sdist, install the wheel alone, run the demo from it
	@echo "== package"
	rm -rf $(DIST) $(WHEEL)
	$(TEST)/bin/python -m build --no-isolation --outdir $(DIST) . > $(TEST)/build-output 2>&1 \
		|| { tail -n 40 $(TEST)/build-output; exit 1; }
	$(TEST)/bin/python -m venv $(WHEEL)
	$(WHEEL)/bin/pip install --quiet --disable-pip-version-check "$$(ls $(DIST)/*.whl)[all]"
	here=$$PWD; elsewhere=$$(mktemp -d); trap 'rm -rf "$$elsewhere"' EXIT; cd "$$elsewhere"; \
		env -u PYTHONPATH "$$here/$(WHEEL)/bin/frieda" demo --quick

bench-smoke: $(TEST)/made  ## one short iteration of every benchmark
	@echo "== benchmarks, one short iteration of each"
	.ci/bench-smoke $(TEST)/bin/frieda

# Outside the tree, so that every checkout has them: ${FRIEDA_PEERS:-~/.local/share/frieda/peers}.
peers: $(TEST)/made  ## install what the benchmarks compare with: Redis, NATS, Apache Kafka with Java
	.ci/peers $(TEST)/bin/python

clean:  ## remove what was built (not .venv)
	rm -rf .venvs build dist out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f .coverage .coverage.* {frieda/wire,transports/shm}/*.{so,c}
	find frieda transports clients bench ysb tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(TEST)/made: $(MADE_OF)
	.ci/venv $(TEST) dev
	@touch $@

$(DEMO)/made: $(MADE_OF)
	.ci/venv $(DEMO) all
	@touch $@
