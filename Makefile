# Only forwards to `python -m bench`; `make help` tells what there is.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEV_CLUSTER := slurm/dev_cluster

STUDY ?=
RESULTS ?= results

# a variable that is set becomes an option: $(call option,NAME,--name)
option = $(if $($(1)),$(2)="$($(1))")
GRID = $(call option,STUDY,--study) $(call option,ALGOS,--algos) $(call option,ENVS,--envs) \
	$(call option,SEEDS,--seeds) $(call option,STEPS,--steps) $(call option,SET,--set) --results "$(RESULTS)" \
	$(call option,DEVICE,--device) $(call option,EXECUTION,--execution) $(call option,PACK,--pack) \
	$(call option,RETRY,--retry)
WHERE = $(call option,STUDY,--study) --results "$(RESULTS)"
MEASURE = $(call option,QUICK,--quick) $(call option,EXECUTION,--execution)

.DEFAULT_GOAL := help
.PHONY: help setup bench status figures experiments video docs slurm cancel timing perf test test-all test-faults test-slurm lint format

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "make %-12s %s\n", $$1, $$2}'
	@echo
	@echo 'What to run:    STUDY=quick|paper|matched|... or a TOML file (python -m bench studies)'
	@echo '                ALGOS="qsm dql sac qsm:M_q=120,T=20"  ENVS="cheetah-run Pendulum-v1"'
	@echo '                SEEDS=5 or SEEDS=0,3,7  STEPS=100000'
	@echo '                SET="eval_every=5000 eval_episodes=3"'
	@echo 'How:            JOBS=2  DEVICE=cpu|cuda  EXECUTION=auto|eager|compile|graph'
	@echo '                PACK=auto|N  JOBS_PER_GPU=2  HANG_MINUTES=30  JOB_MEMORY_MB=4000'
	@echo '                CHECKPOINTS=folder  RETRY=1'
	@echo 'On a cluster:   PROFILE=local  JOBS_PER_TASK=4  DRY=1  FIGURES=1'
	@echo 'Status:         JSON=1  EXIT_CODE=1  WATCH=30'
	@echo 'Timing:         QUICK=1  EXECUTION="eager compile"  ALGOS="qsm dql"'
	@echo '                GRIDS="10 100 1000"'
	@echo 'Where:          RESULTS=folder (default results)'
	@echo '                RUN=results/<study>/<env>/<label>/seed-<k> (make video)'
	@echo
	@echo 'Examples:       make bench'
	@echo '                make bench ALGOS="qsm dql sac" ENVS=cheetah-run SEEDS=5 STUDY=paper'
	@echo '                make slurm STUDY=paper SEEDS=10 PROFILE=local DRY=1'
	@echo '                make status STUDY=paper      make figures STUDY=paper'

setup: $(STAMP)  ## make the environment in .venv, once (every target does it)

$(STAMP): constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@$(CC) -shared -fPIC -nostdlib -o $(VENV)/lib/mkl_avx512.so bench/machine/mkl_avx512.c 2>/dev/null || \
		echo "make: no C compiler here: on AMD processors with AVX-512, matrix products take twice the time (docs/timing.md)"
	@touch $@

bench: $(STAMP)  ## train what is missing of a study here, then draw it
	@$(PY) -m bench run $(GRID) $(call option,JOBS,--jobs) $(call option,JOBS_PER_GPU,--jobs-per-gpu) \
	$(call option,HANG_MINUTES,--hang-minutes) $(call option,JOB_MEMORY_MB,--job-memory-mb) \
	$(call option,CHECKPOINTS,--checkpoints)

status: $(STAMP)  ## how runs stand: done, running, failed and why, missing
	@$(PY) -m bench status $(WHERE) $(call option,JSON,--json) $(call option,EXIT_CODE,--exit-code) $(call option,WATCH,--watch)

figures: $(STAMP)  ## tables, figures and report from results/ alone
	@$(PY) -m bench figures $(WHERE)

experiments: $(STAMP)  ## multi-modality, exploration, the theorem: 40 minutes
	@$(PY) -m bench experiments --results "$(RESULTS)" $(call option,JOBS,--jobs)

video: $(STAMP)  ## a trained policy as MP4 and GIF: RUN=its run directory
	@$(PY) -m bench video "$(RUN)"

docs: $(STAMP)  ## bring what README.md and docs/ show of results up to date
	@$(PY) -m bench docs --results "$(RESULTS)"

slurm: $(STAMP)  ## submit the same grid to a Slurm cluster
	@$(PY) -m bench slurm $(GRID) $(call option,PROFILE,--profile) $(call option,JOBS_PER_TASK,--jobs-per-task) \
	$(call option,JOBS_PER_GPU,--jobs-per-gpu) $(call option,DRY,--dry) $(call option,FIGURES,--figures)

cancel: $(STAMP)  ## cancel a study's Slurm jobs, and no others
	@$(PY) -m bench cancel $(WHERE)

timing: $(STAMP)  ## the wall-clock protocol (an idle machine, please)
	@$(PY) -m bench timing --results "$(RESULTS)" $(MEASURE) $(call option,ALGOS,--algos)

perf: $(STAMP)  ## beside Stable-Baselines3 and SBX (in a .perf-venv)
	@$(PY) -m bench perf --results "$(RESULTS)" $(MEASURE) $(call option,GRIDS,--grids)

test: $(STAMP)  ## all tests but the long ones below
	$(PY) -m pytest -m "not full and not slurm and not faults"

test-all: $(STAMP)  ## every execution mode and precision too
	$(PY) -m pytest -m "not slurm and not faults"

test-faults: $(STAMP)  ## kills, full disks, bad data, long runs: 20 minutes, root
	$(PY) -m pytest tests/faults

test-slurm: $(STAMP)  ## the cluster on a real one-host Slurm (root, Debian)
	@! $(DEV_CLUSTER) status >/dev/null 2>&1 || up=1; $(DEV_CLUSTER) up && \
		{ $(PY) -m pytest -m slurm tests/slurm; code=$$?; test "$$up" || $(DEV_CLUSTER) down; exit $$code; }

lint: $(STAMP)  ## ruff (format and check) and mypy
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(STAMP)  ## let ruff put the code in order
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .
