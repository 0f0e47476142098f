# What one does with this repository; every target works from a fresh clone with nothing but make and Python 3.11 or newer.

VENV ?= .venv
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3 python3.14,$(shell \
	$(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $(name))))
JOBS ?= 2
BIN := $(VENV)/bin

.DELETE_ON_ERROR:
.PHONY: help demo test lint bench clean

help:
	@echo "make demo    compile the sample for a microcontroller and run it there, in an emulator"
	@echo "make test    style, types and every test (installs PyTorch and every back end first: large)"
	@echo "make lint    style and types only"
	@echo "make bench   measure this revision"
	@echo "make clean   remove what these made, the virtual environment too"

demo: $(VENV)/.installed
	$(BIN)/python samples/fashion/demo.py

# One process a file: where a vendor's library crashes, it takes that file's tests along and no others.
test: lint $(VENV)/.installed-train
	ls tests/test_*.py tests/corpus/test_*.py | xargs -P $(JOBS) -n 1 $(BIN)/python -m pytest -q

lint: $(VENV)/.installed-train | build/links
	$(BIN)/ruff check .
	$(BIN)/mypy .

bench: $(VENV)/.installed-train
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/zoo.py
	$(BIN)/python benchmarks/deployment.py

# In a clone of another name, this lets the type checker see where `import edgesmith` leads to in tests and samples.
build/links:
	mkdir -p $@
	test "$(notdir $(CURDIR))" = edgesmith || ln -sfn ../.. $@/edgesmith

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "edgesmith needs Python 3.11 or newer; none was found. Set PYTHON=/path/to/python3." >&2; exit 5; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 5; }

$(VENV)/.installed: pyproject.toml setup.py | $(BIN)/python
	@echo "Installing edgesmith and what it needs (1 GB on disk, once) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-train: pyproject.toml setup.py | $(BIN)/python
	@echo "Installing what the tests need, PyTorch and every back end among it (several GB, once) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,train,coreml,tflite,tvm,board,search,ray]'
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
