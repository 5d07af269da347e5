# SPDX-License-Identifier: Apache-2.0
# Every target is self-sufficient on a plain Debian 12: it installs what is missing
# (as root), and leaves everything that it makes in build/.

PYTHON := /usr/bin/python3
VENV := build/venv
NODE := a
SECONDS := 60
ROUNDS := 30
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
export PYTHONUNBUFFERED := 1

# In this order: what is fast and narrow first.
TESTS := $(wildcard tests/unit tests/core tests/replica tests/api tests/lab)
SCRIPTS := .ci/run packaging/build-deb packaging/install-deps packaging/install-launchers \
	packaging/debian/haoperator.postinst packaging/debian/haoperator.prerm \
	packaging/debian/haoperator.postrm packaging/bash-completion/hactl

.PHONY: help demo test lint lint-ruff lint-mypy lint-imports lint-scripts format deb bench matrix soak soak-takeover soak-power ext deps sanitize fuzz lab-up lab-down lab-shell clean need-root bench-takeover saturate explore mutants

.NOTPARALLEL:

help:
	@echo 'make demo           two nodes, Redis, a power cut, a failback, a swap (root)'
	@echo 'make test           every check and every test, the lab among them (root)'
	@echo 'make lint           formatting, types, imports, units, scripts'
	@echo 'make format         put the formatting right'
	@echo 'make deb            build/haoperator_*.deb, and lintian on it'
	@echo 'make bench          measurements, beside GlusterFS: make bench BENCH=--quick (root)'
	@echo 'make bench-takeover power cuts, beside keepalived and Pacemaker: ROUNDS=30 (root)'
	@echo 'make sanitize       the tests of replication, with a C extension that watches itself (root)'
	@echo 'make fuzz           nonsense for the parsers: make fuzz SECONDS=600 (root)'
	@echo 'make explore        every state of the failover core, and lives by chance: SEED=…'
	@echo 'make mutants        each guard of the core negated: some test must fail'
	@echo 'make matrix         every fault on a real pair, into docs/fault-matrix.md (root)'
	@echo 'make soak           faults at random, for an hour: make soak SECONDS=600 SEED=… (root)'
	@echo 'make soak-takeover  takeovers in a row: make soak-takeover N=100 (root)'
	@echo 'make soak-power     power cuts at random: make soak-power N=200 SEED=… (root)'
	@echo 'make saturate       heartbeats on busy cores and disks: make saturate SECONDS=3600 (root)'
	@echo 'make lab-up         boot the two nodes of the lab (root)'
	@echo 'make lab-shell      a shell in a node: make lab-shell NODE=a'
	@echo 'make lab-down       power the lab off and remove what it made'
	@echo 'make clean          remove build/ and compiled files'

define say
	@printf '\n== %s\n' '$(1)'
endef

# First of all, before anything takes time.
need-root:
	@if [ "$$(id -u)" != 0 ]; then \
		echo; \
		echo '*** This needs root: it mounts file systems and boots nodes. ***'; \
		echo '*** Run: sudo make $(MAKECMDGOALS)'; \
		echo; exit 1; \
	fi

deps:
	@packaging/install-deps

# The linters. Made again when the list changes.
$(VENV)/.made: packaging/requirements-dev.txt | deps
	@rm -rf $(VENV)
	@$(PYTHON) -m venv --system-site-packages $(VENV)
	@$(VENV)/bin/pip --disable-pip-version-check --no-input install -q -r $<
	@touch $@

# All of them run, so that one run shows all that is to be put right.
lint: deps $(VENV)/.made
	@$(MAKE) --no-print-directory -k lint-ruff lint-mypy lint-imports lint-scripts

lint-ruff:
	$(call say,ruff)
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .

lint-mypy:
	$(call say,mypy)
	@$(VENV)/bin/mypy

lint-imports:
	$(call say,import-linter)
	@$(VENV)/bin/lint-imports --cache-dir build/import-linter

lint-scripts:
	$(call say,shellcheck)
	@shellcheck $(SCRIPTS)

format: deps $(VENV)/.made
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

# The C extension beside its sources, for the tests.
ext: deps
	@$(PYTHON) -W ignore setup.py -q build_ext --inplace --build-temp build/ext

deb: deps
	$(call say,the Debian package)
	@packaging/build-deb build
	@lintian --allow-root --fail-on warning,error --tag-display-limit 0 build/haoperator_*.deb

test: need-root
	@$(MAKE) --no-print-directory lint
	$(call say,the C extension)
	@$(MAKE) --no-print-directory ext
	@$(MAKE) --no-print-directory deb
	$(call say,pytest)
	@$(PYTHON) -m pytest -v $(TESTS)

# A part of it is in `make test`: tests/replica/test_sanitizers.py.
sanitize: need-root ext
	$(call say,the address sanitizer)
	@HAOPERATOR_SANITIZER=address $(PYTHON) -m pytest -v tests/replica
	$(call say,the thread sanitizer)
	@HAOPERATOR_SANITIZER=thread $(PYTHON) -m pytest -v tests/replica

fuzz: need-root ext
	@HAOPERATOR_FUZZ_SECONDS=$(SECONDS) $(PYTHON) -m pytest -v -s tests/replica/test_fuzz_c.py \
		tests/replica/test_fuzz.py

demo: need-root deb
	@$(PYTHON) -m tests.lab.demo

bench: need-root deps ext
	@packaging/install-deps tests/bench/apt-packages
	@$(PYTHON) -m tests.bench $(BENCH)

bench-takeover: need-root deb
	@$(PYTHON) -m tests.bench.takeover --rounds $(ROUNDS)

matrix: need-root deb
	@$(PYTHON) -m tests.lab matrix $(ONLY)

soak: SECONDS := 3600
soak: need-root deb
	@$(PYTHON) -m tests.lab soak $(SECONDS)

soak-takeover: need-root deb
	@$(PYTHON) -m tests.lab takeovers

soak-power: need-root deb
	@$(PYTHON) -m tests.lab power

# Ten minutes on two cores. A part of it is in `make test`: tests/core.
explore: deps
	$(call say,every state)
	@$(PYTHON) -m tests.core.explorer --seconds 125
	$(call say,lives by chance)
	@$(PYTHON) -m tests.core.simulator $(if $(SEED),--seed $(SEED))

mutants: deps
	@$(PYTHON) -m tests.core.mutants

# A few seconds of it are in `make test`.
saturate: need-root deps
	@HAOPERATOR_SATURATE_SECONDS=$(SECONDS) $(PYTHON) -m pytest -v tests/unit/test_heartbeat_saturated.py

lab-up: need-root deb
	@$(PYTHON) -m tests.lab up

lab-down: need-root deps
	@$(PYTHON) -m tests.lab down

lab-shell: need-root deps
	@$(PYTHON) -m tests.lab shell $(NODE)

clean:
	rm -rf build haoperator/replica/_hotpath*.so haoperator.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
