# The verbs of the project. `make` alone lists them.
#
#   MPI=mpich (the default) or MPI=openmpi chooses the MPI library; each has its own environment.
#   ARGS=... goes to pytest:  make test ARGS='-k ring -x'

MPI    ?= mpich
VENV   ?= $(if $(filter mpich,$(MPI)),.venv,.venv-$(MPI))
PYTHON ?= $(shell command -v python3.11 || command -v python3)

BIN      := $(VENV)/bin
METADATA := setup.cfg setup.py pyproject.toml constraints.txt $(wildcard commbench/transport/*.[ch])
PIP       = $(BIN)/python -m pip install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test bench figures reference screenshots lint types format clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The package and an MPI library, no more: all that a user needs.
$(VENV)/installed: $(METADATA)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[$(MPI)]'
	touch $@

# The tools of a developer on top.
$(VENV)/developing: $(VENV)/installed
	$(PIP) --editable '.[$(MPI),test,lint]'
	touch $@

# Open MPI refuses to start as root, and to start more ranks than cores, unless it is told twice;
# a container on a small machine is both. MPICH reads none of these.
demo: export OMPI_ALLOW_RUN_AS_ROOT := 1
demo: export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
demo: export PRTE_MCA_rmaps_default_mapping_policy := :oversubscribe
demo: $(VENV)/installed ## train a small model on four ranks, two exchanges side by side
	PATH="$(abspath $(BIN)):$$PATH" sh examples/demo.sh

test: $(VENV)/developing ## run every test, the parallel ones under mpirun (MPI=openmpi for the other library)
	$(BIN)/python -m pytest $(ARGS)

# Long runs are kept beside the document that shows them.
BENCH := results/$(if $(QUICK),quick,benchmarks)

bench: ## time the exchanges against MPI, Gloo and loops by hand, under both libraries (QUICK=1: briefly)
	$(MAKE) --no-print-directory .venv/installed MPI=mpich
	$(MAKE) --no-print-directory .venv-openmpi/installed MPI=openmpi
	sh benchmarks/measure.sh $(BENCH) mpich=$(CURDIR)/.venv/bin openmpi=$(CURDIR)/.venv-openmpi/bin
	.venv/bin/python -m benchmarks.table --results $(BENCH) $(if $(QUICK),,--document docs/PERFORMANCE.md)

figures: $(VENV)/installed ## draw the figures of README and docs/LARGE-BATCH.md again from the results that come along
	for suffix in png svg; do \
		$(BIN)/commbench report results/reference/*.h5 --output results/reference/comparison.$$suffix || exit 1; \
	done
	for file in results/reproduce/*.h5; do \
		$(BIN)/commbench reproduce $$(basename $$file .h5) $$file || exit 1; \
	done

# Not of every day: README's figure shows what these runs measured, so nothing else may go on.
reference: $(VENV)/installed ## make the runs behind README's figure again, on a machine with nothing else to do
	rm -f results/reference/*.h5
	PATH="$(abspath $(BIN)):$$PATH" sh examples/demo.sh results/reference
	rm results/reference/parameter-server-against-tree.png results/reference/report.html
	$(MAKE) --no-print-directory figures

screenshots: $(VENV)/developing ## take the pictures of docs/REPORT.md, with Chromium
	PYTHONPATH=tests:. $(BIN)/python -m screenshots docs/figures

lint: $(VENV)/developing ## check style, spelling and types; change nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(MAKE) --no-print-directory types

# mypy does not follow setup.cfg's package_dir, so it is shown a tree laid out as installed.
types: $(VENV)/developing
	rm -rf build/lint && mkdir -p build/lint/commbench
	ln -s $(abspath $(wildcard commbench/*)) $(abspath topologies workloads) build/lint/commbench/
	ln -s $(abspath benchmarks) build/lint/
	MYPYPATH=build/lint $(BIN)/mypy --package commbench --package benchmarks

format: $(VENV)/developing ## rewrite the sources in the one style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean: ## remove what the other targets made, the environments included
	rm -rf build dist .venv .venv-openmpi .venv-impi *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
