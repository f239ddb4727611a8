# Two commands on a fresh machine: `make train` and `make test`. `make help` lists all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
SOAK_SECONDS ?= 1500
export PYTHONUNBUFFERED := 1
unexport PYTHONDONTWRITEBYTECODE # else every process of a test compiles this package anew

.DEFAULT_GOAL := help
.PHONY: help setup train sweep bench docs dashboard browser slurm test test-long test-slurm types pytest soak soak-kills soak-damage soak-sweep soak-processes format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The stamp is newer than what it was made from, so nothing is installed twice.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info[:3] < (3, 14))' || { echo "Python 3.11.4 to 3.13 is needed; name one: make PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,export,loggers,ray,tune]'
	touch $@

setup: $(VENV)/.installed ## the environment alone, in .venv (idempotent)

train: setup ## train on the embedded data set; ARGS="model=resnet34 magnification=100x" overrides
	$(BIN)/python -m histo_lightning.train $(ARGS)

sweep: setup ## a small depth study on the embedded data set (12 minutes on 2 cores); prints where its report is
	$(BIN)/python -m histo_lightning.train experiment=depth_study hydra/launcher=joblib model=resnet10,resnet18,resnet34 \
	  magnification=40x seed=0 image_size=64 epochs=15 callbacks.ema.decay=0.95 $(ARGS)

bench: setup ## measure the speed against the limits and the naive pipeline (8 to 9 minutes on 2 cores)
	$(BIN)/python -m histo_lightning.benchmark $(ARGS)

docs: setup ## build the site of docs/ into site/, strictly
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

dashboard: setup ## serve TensorBoard over all runs in outputs/
	$(BIN)/python -m histo_lightning.report tensorboard=true $(ARGS)

browser: ## install Debian's chromium and its driver, for the browser tests (needs root)
	test -x /usr/bin/chromedriver || { apt-get update -q && apt-get install -y -q --no-install-recommends chromium chromium-driver; }

slurm: ## install Debian's Slurm and munge, for the tests on a real Slurm (needs root)
	command -v slurmctld >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends slurmctld slurmd slurm-client munge; }

test: setup ## everything CI runs: format, lint, types, layers, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --jobs=2 types pytest

types:
	$(BIN)/mypy
	$(BIN)/lint-imports

pytest:
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long and not slurm" --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)  # three on two cores: they wait for commands of their own

test-long: setup ## the tests that take long: kills, soak
	$(BIN)/python -m pytest -m "long and not slurm" $(ARGS)

test-slurm: setup ## sweeps on a real Slurm of one node, set up on 127.0.0.1 (`make slurm` installs it)
	$(BIN)/python -m pytest tests/slurm -m slurm $(ARGS)

soak: setup ## half an hour of kills, damaged files, killed processes and one long sweep; the figures go to docs/soak.md
	mkdir -p outputs/soak
	$(MAKE) -j2 soak-kills soak-damage soak-sweep soak-processes
	$(BIN)/python docs/generate.py soak=outputs/soak

soak-kills:
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m factories.kills kills=1000 seconds=$(SOAK_SECONDS)

soak-damage:
	HISTO_SOAK=outputs/soak HISTO_TRIALS=1000 HISTO_SECONDS=$(SOAK_SECONDS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long -k used_without_a_word tests/commands/test_damage.py

soak-sweep: soak-kills
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m factories.soak trials=50

soak-processes: soak-damage
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m factories.killed trials=20 seconds=300

format: setup ## format and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and build products; outputs/ and caches stay
	rm -rf $(VENV) dist build site .mypy_cache .ruff_cache .pytest_cache .hypothesis
