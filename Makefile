# Everything sets up .venv when it is missing or older than pyproject.toml and constraints.txt.
#   make demo       fetch the assets, run the main job, print the result table
#   make label      label 1,000 texts by a real language model on this machine
#   make serve      serve the model that the demo registered
#   make cluster    the whole pipeline on a Ray cluster of three nodes on this machine, with a killed worker and a lost node
#   make test       lint, unit tests, integration tests on the real assets
#   make test-slow  what `make test` leaves out: lost nodes, killed runs, a browser, a language model, long series
#   make check      lint and all unit tests, which need no assets
#   make promises   print what each test promises, a line each; runs none
#   make size       lines of code per package, files, commands, keys, pages and words, against their budgets
#   make docs       the documentation as a site, in site/

.DELETE_ON_ERROR:
.PHONY: docs demo label serve cluster test promises test-slow test-assets check lint size constraints python clean

BIN := .venv/bin
INSTALLED := .venv/installed
CONFIG := jobs/configs/reviews.yaml
UNIT_TESTS := $(filter-out tests/integration/ tests/__pycache__/,$(wildcard tests/*/)) $(wildcard tests/test_*.py)
IN_TWO_SESSIONS := --numprocesses=2 --dist=loadfile

# The first that is new enough and can make a virtual environment; 3.11 is what constraints.txt was tested with.
CANDIDATES := python3.11 python3.12 python3.13 python3
PYTHON ?= $(shell for python in $(CANDIDATES); do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

demo: $(INSTALLED)
	$(BIN)/python tools/assets.py
	$(BIN)/kcm run $(CONFIG)

label: $(INSTALLED)
	$(BIN)/python tools/assets.py reviews sentence-transformers/all-MiniLM-L6-v2 SmolLM2-135M-Instruct-GGUF
	$(BIN)/python examples/label/reviews.py --target .8 --yes

serve: $(INSTALLED)
	$(BIN)/kcm serve $(CONFIG)

# `make cluster ARGS=--keep` leaves the dashboard, MLflow's page and the service open.
cluster: $(INSTALLED)
	$(BIN)/python tools/assets.py
	$(BIN)/python tools/cluster.py $(ARGS)

# `make test RETRY=1`: failed tests run once more, alone, and both results are printed. A machine that stalls for seconds
# looks like a fault to a test that waits for a process.
AGAIN := $(if $(RETRY),|| OMP_NUM_THREADS=1 $(BIN)/pytest --last-failed --last-failed-no-failures=none -rA --tb=short)

# Unit tests first, since they fail faster, on every core. Integration tests mostly wait for processes that start one after
# the other: two sessions, each with a cluster of its own, and the tests of a file in one of them, share what they build.
test: lint test-assets
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=auto -m "not slow" $(UNIT_TESTS) $(AGAIN)
	OMP_NUM_THREADS=1 $(BIN)/pytest $(IN_TWO_SESSIONS) -m "not slow" tests/integration/ $(AGAIN)

promises: $(INSTALLED)
	$(BIN)/pytest --promises --quiet tests

test-slow: test-assets
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=auto -m slow $(UNIT_TESTS) $(AGAIN)
	OMP_NUM_THREADS=1 $(BIN)/pytest $(IN_TWO_SESSIONS) -m slow tests/integration/ $(AGAIN)

check: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=auto $(UNIT_TESTS)

docs: $(INSTALLED)
	$(BIN)/mkdocs build --quiet

test-assets: $(INSTALLED)
	$(BIN)/python tools/assets.py
	$(BIN)/python tools/assets.py SmolLM2-135M-Instruct-GGUF efficientnet-lite2

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/size --packages

size: $(INSTALLED)
	$(BIN)/python .ci/size

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: found no Python >= 3.11 that has the venv module;" \
		"install one (Debian: apt-get install python3-venv) or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "setting up .venv: minutes on the first call"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python .ci/install '.[test]'
	touch $@

# Pins of what is installed now; torch and what comes with it stay free, since they differ by machine.
constraints: $(INSTALLED)
	{ sed '/^[^#]/,$$d' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable \
		| grep -ivE '^(torch|torchvision|triton|nvidia-.*|cuda-.*|pip|setuptools)([=@ ]|$$)'; } > constraints.new
	mv constraints.new constraints.txt

python:
	@echo $(PYTHON)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
