# Only forwards to `python -m bench`; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
# Few shells expand the ~ and $HOME of NAME=~/folder.
ifneq ($(findstring command line,$(origin VENV)),)
override VENV := $(if $(word 2,$(value VENV)),$(error VENV=$(value VENV): expected a folder without blanks in its name),$(shell printf %s $(value VENV)))
endif
$(if $(VENV),,$(error VENV is empty: expected a folder))
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# The variables of each target. The command of that name has an option for every one of them: STUDY becomes --study.
GRID := STUDY ALGOS ENVS SEEDS STEPS SET RESULTS DEVICE EXECUTION PACK RETRY JOBS_PER_GPU DRY
TAKES_bench := $(GRID) JOBS HANG_MINUTES JOB_MEMORY_MB CHECKPOINTS
TAKES_slurm := $(GRID) PROFILE JOBS_PER_TASK FIGURES
TAKES_status := STUDY RESULTS JSON EXIT_CODE WATCH
TAKES_figures := STUDY RESULTS ALGOS ENVS STEPS SUBJECT BASELINE NORMALISE METRIC SENSITIVITY OTHERS WIDTH
TAKES_import := FILES SOURCE COLUMNS VALUES NAMES METRIC RENAME ENVS ACTION_REPEAT EVERY RESULTS
TAKES_cancel := STUDY RESULTS
TAKES_experiments := JOBS RESULTS
TAKES_video := RUN
TAKES_docs := RESULTS
TAKES_timing := QUICK EXECUTION SIZES DEVICE ALGOS RESULTS
TAKES_perf := QUICK EXECUTION GRIDS RESULTS

# The width of a terminal, where a shell exports it, is not meant.
ifeq ($(origin COLUMNS),environment)
  TAKES_import := $(filter-out COLUMNS,$(TAKES_import))
endif

COMMANDS := bench status figures import experiments video docs slurm cancel timing perf
CHECKS := test test-quick test-slow test-all test-faults test-slurm lint format
.DEFAULT_GOAL := help
.PHONY: help setup $(COMMANDS) $(CHECKS) FORCE

# Else make would carry out the others first: `make bench quick` would train.
TARGETS := help setup $(COMMANDS) $(CHECKS)
UNKNOWN := $(firstword $(filter-out $(TARGETS) FORCE $(STAMP),$(MAKECMDGOALS)))
ifneq ($(UNKNOWN),)
$(error there is no target $(UNKNOWN): `make help` lists them$(if $(filter bench slurm,$(MAKECMDGOALS)),; a study is named as in make bench STUDY=quick))
endif

# A variable that no target of this call takes is a mistake: STEPS=9 of `make status`, ALGO= for ALGOS=.
GOALS := $(or $(MAKECMDGOALS),help)
TAKEN := $(sort $(foreach goal,$(GOALS),$(TAKES_$(goal))))
GIVEN := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
WRONG := $(firstword $(filter-out $(TAKEN) PYTHON VENV CC SHELL MAKEFLAGS MAKEOVERRIDES GNUMAKEFLAGS,$(filter-out -%,$(GIVEN))))
ifneq ($(WRONG),)
match := import difflib, sys; name, *known = sys.argv[1:]; name = name.upper(); close = difflib.get_close_matches(name, known, 3, .55); \
  print(" or ".join(close or [other for other in known if other.startswith(name)]))
close := $(shell $(PYTHON) -c '$(match)' '$(subst ','\'',$(WRONG))' $(TAKEN) 2>/dev/null)
elsewhere := $(strip $(foreach goal,$(COMMANDS),$(if $(filter $(WRONG),$(TAKES_$(goal))),$(goal))))
$(error make $(GOALS) does not take $(WRONG)$(if $(elsewhere), ($(elsewhere) $(if $(word 2,$(elsewhere)),do,does)))$(if $(close),: did you mean $(close)?,.) It takes $(or $(strip $(TAKEN)),no variables))
endif

# Values are passed on unchanged: neither make nor the shell expands them.
quoted = '$(subst ','\'',$(value $1))'
options = $(foreach name,$(TAKES_$@),$(if $(or $(value $(name)),$(findstring command line,$(origin $(name)))),$(name)=$(call quoted,$(name))))

# Variables of the shell count too, perhaps unintentionally, so they are reported. (ENV is a variable of POSIX shells.)
inherited := $(strip $(foreach name,$(TAKEN),$(if $(filter environment,$(origin $(name))),$(name)=$(value $(name)))))
ignored := $(strip $(foreach name,$(filter-out ENV,$(patsubst %S,%,$(filter %S,$(TAKEN)))),$(if $(filter environment,$(origin $(name))),$(name))))
$(if $(inherited),$(warning from the environment: $(inherited)))
$(if $(ignored),$(warning in the environment, but not used: $(ignored); meant may be $(addsuffix S,$(ignored))))

# A recipe gets them on its command line, as they stand; in its environment make would expand them.
unexport $(TAKEN)

# Names a Python library folder of another environment, so that ours does not start.
ifdef PYTHONHOME
$(warning PYTHONHOME is not passed on)
unexport PYTHONHOME
endif

help:  ## this list
	@exec awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2} /^#:/ {text = text substr($$0, 4) "\n"} END {printf "\n%s", text}' Makefile

#: What to run:    STUDY=quick|paper|matched|... or a TOML file (python -m bench studies)
#:                 ALGOS="qsm dql sac qsm:M_q=120,T=20"  ENVS="cheetah-run Pendulum-v1"
#:                 SEEDS=5 or SEEDS=0,3,7 (seed 7 alone: 7,)  STEPS=100000
#:                 SET="eval_every=5000 eval_episodes=3"
#: How:            JOBS=2  DEVICE=cpu|cuda  EXECUTION=auto|eager|compile|graph
#:                 PACK=auto|N  JOBS_PER_GPU=2  HANG_MINUTES=30  JOB_MEMORY_MB=4000
#:                 CHECKPOINTS=folder  RETRY=1  DRY=1 (only the plan: runs, hours, disk)
#: On a cluster:   PROFILE=local  JOBS_PER_TASK=4  DRY=1  FIGURES=1
#: Figures:        STUDY="early-100k sac-choices" or a figures file; ALGOS ENVS STEPS
#:                 SUBJECT=qsm BASELINE="sac td3" NORMALISE="random sac" METRIC=q_gradient
#:                 SENSITIVITY=M_q OTHERS="dime sac@simba" WIDTH=column|page
#: Import:         FILES="runs.csv more.csv" or a folder; SOURCE=lab METRIC=eval/return
#:                 COLUMNS="return=reward" VALUES="env=cheetah-run algo=sac"
#:                 NAMES="{algo}/{env}_s{seed}.csv" RENAME="SAC_v2=sac" ENVS
#:                 ACTION_REPEAT=2 EVERY=25000
#: Status:         JSON=1  EXIT_CODE=1  WATCH=30
#: Timing:         QUICK=1  EXECUTION="eager compile"  SIZES="authors matched parts"
#:                 ALGOS="qsm sac:critic=simba"
#:                 GRIDS="10 100 1000"
#: Where:          RESULTS=folder (default results)
#:                 RUN=results/<study>/<env>/<label>/seed-<k> (make video)
#: Environment:    PYTHON=python3.12  VENV=folder (default .venv)
#:
#: Examples:       make bench
#:                 make bench ALGOS="qsm dql sac" ENVS=cheetah-run SEEDS=5 STUDY=paper
#:                 make slurm STUDY=paper SEEDS=10 PROFILE=local DRY=1
#:                 make status STUDY=paper      make figures STUDY=paper

setup: $(STAMP)  ## make the environment in .venv, once (every target does it)

# Also where its Python is gone, or PYTHON= names another version than the environment's.
ifneq ($(shell test -x "$(PY)" || echo gone),)
$(STAMP): FORCE
else ifneq ($(filter command environment,$(origin PYTHON)),)
ifneq ($(shell $(PYTHON) --version 2>&1),$(shell cat $(STAMP) 2>&1))
$(STAMP): FORCE
endif
endif
$(STAMP): constraints.txt pyproject.toml bench/machine/install.py
	@exec $(PYTHON) -I bench/machine/install.py "$(VENV)"

# Every recipe is one process, `exec`ed: a signal sent to make (kill, docker stop) reaches it, and make waits for its end.

bench: $(STAMP)  ## train the missing runs of a study here, then draw it
	@exec $(PY) -m bench run $(options)

status: $(STAMP)  ## the state of runs: done, running, failed and why, missing
	@exec $(PY) -m bench $@ $(options)

figures: $(STAMP)  ## tables, figures and report from results/ alone
	@exec $(PY) -m bench $@ $(options)

import: $(STAMP)  ## take scores of others, to be shown beside ours: FILES=their.csv
	@exec $(PY) -m bench $@ $(options)

experiments: $(STAMP)  ## multi-modality, exploration, the theorem: 40 minutes
	@exec $(PY) -m bench $@ $(options)

video: $(STAMP)  ## a trained policy as MP4 and GIF: RUN=its run directory
	@exec $(PY) -m bench $@ $(options)

docs: $(STAMP)  ## update the generated parts of README.md and docs/
	@exec $(PY) -m bench $@ $(options)

slurm: $(STAMP)  ## submit the same grid to a Slurm cluster
	@exec $(PY) -m bench $@ $(options)

cancel: $(STAMP)  ## cancel a study's Slurm jobs, and no others
	@exec $(PY) -m bench $@ $(options)

timing: $(STAMP)  ## the wall-clock protocol (an idle machine, please)
	@exec $(PY) -m bench $@ $(options)

perf: $(STAMP)  ## against Stable-Baselines3 and SBX (in a .perf-venv)
	@exec $(PY) -m bench $@ $(options)

test: $(STAMP)  ## all tests but those below, on every core
	@exec $(PY) -m pytest -n auto -m "not slow and not full and not slurm and not faults"

test-quick: $(STAMP)  ## those of a fraction of a second, while editing
	@exec $(PY) -m pytest -n auto --ignore=tests/faults -m "not seconds and not slow and not full and not slurm"

test-slow: $(STAMP)  ## those that take long: whole grids, kills, compiled updates, documents (CI runs them too)
	@exec $(PY) -m pytest -n auto -m "slow and not full and not slurm and not faults"

test-all: $(STAMP)  ## every execution mode and precision too
	@exec $(PY) -m pytest -n auto -m "not slurm and not faults"

test-faults: $(STAMP)  ## kills, full disks, bad data, long runs: 20 minutes, root
	@exec $(PY) -m pytest tests/faults

test-slurm: $(STAMP)  ## the cluster on a real one-host Slurm (root, Debian)
	@exec .ci/with_cluster $(PY) -m pytest -m slurm tests/slurm

lint: $(STAMP)  ## ruff (format and check) and mypy
	@exec sh -ec '"$$0" -m ruff format --check .; "$$0" -m ruff check .; exec "$$0" -m mypy' $(PY)

format: $(STAMP)  ## format the code with ruff
	@exec sh -ec '"$$0" -m ruff format .; exec "$$0" -m ruff check --fix .' $(PY)
