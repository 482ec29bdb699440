# The commands of this project; `make help` lists them. Everything is installed into
# .venv, once, and again when setup.py changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The same ruff as pre-commit's.
RUFF := ruff==$(shell sed -n '/ruff-pre-commit/{n;s/.*rev: v//p;}' .pre-commit-config.yaml)
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile

# Tests compile much; a second run finds it here.
export JAX_COMPILATION_CACHE_DIR ?= $(HOME)/.cache/movq_jax/xla

.PHONY: help demo demo-prior test test-all lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo        train a small MoVQ on photographs and look at the result"
	@echo "make demo-prior  then a small prior on its indices, and draw from it"
	@echo "make test        the tests, without slow, parity and demo"
	@echo "make test-all    all tests"
	@echo "make lint        ruff, as pre-commit runs it"
	@echo "make clean       delete .venv, builds and caches; runs and data stay"
	@echo "PYTHON=python3.12 chooses the Python of .venv, WORKERS=8 the test processes."

demo: $(VENV)/photos.stamp $(JAX_COMPILATION_CACHE_DIR)
	PYTHON=$(BIN)/python launch/demo.sh

demo-prior: demo
	PYTHON=$(BIN)/python launch/demo_prior.sh

test: $(VENV)/test.stamp $(JAX_COMPILATION_CACHE_DIR)
	$(PYTEST) -m "not slow and not parity and not demo"

test-all: $(VENV)/test.stamp $(VENV)/parity.stamp $(JAX_COMPILATION_CACHE_DIR)
	$(PYTEST)

lint: $(VENV)/lint.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find configs movq_jax tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "movq_jax needs Python 3.11 or later: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/photos.stamp $(VENV)/test.stamp: $(VENV)/%.stamp: $(VENV)/python.stamp setup.py
	@echo "installing movq_jax[$*] into $(VENV): one to three minutes"
	$(PIP) --editable '.[$*]'
	@touch $@

# Only on Python 3.11, and torch first: elsewhere pip fetches gigabytes of CUDA. So it
# would for torchvision (that of this torch), and for what needs one of the two: they
# come without dependencies.
TORCH_ONLY := torchvision==0.28.0 lpips==0.1.4 torch-fidelity==0.4.0 \
  pytorch-fid==0.3.0 clean-fid==0.1.35 torchmetrics==1.9.0
$(VENV)/parity.stamp: $(VENV)/test.stamp
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
	  set -ex; $(PIP) torch==2.13.0; $(PIP) --no-deps $(TORCH_ONLY); \
	  $(PIP) --editable '.[parity]'; \
	else echo "the parity tests need Python 3.11: they will be skipped"; fi
	@touch $@

$(VENV)/lint.stamp: $(VENV)/python.stamp .pre-commit-config.yaml
	$(PIP) $(RUFF)
	@touch $@

# Private: what lies in it is executed.
$(JAX_COMPILATION_CACHE_DIR):
	mkdir -p -m 700 $@
