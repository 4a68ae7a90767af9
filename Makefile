# What users need is `make demo` and `make test`; what CI runs is `make check`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TRACE  := bench/traces/x86-pc-boot.tsv.gz

.PHONY: demo demo-service test test-long check lint types bench docs clean install

demo: install ## replay a recorded Linux boot through uploaded device programs, on both engines
	$(BIN)/devbc verify devices/i8254/i8254.dev
	$(BIN)/devbc replay --machine pc --engine interp $(TRACE)
	$(BIN)/devbc replay --machine pc --engine jit $(TRACE)

demo-service: install ## the same with the hypervisor as a process of its own, and a guest on two vCPUs
	sh bench/demo_service.sh $(BIN)/devbc $(TRACE)

test: install ## the test suite
	$(BIN)/pytest -n auto

test-long: install ## slow campaigns
	$(BIN)/pytest -n auto -m "long or not long" --hypothesis-profile=long

check: lint types test ## what CI runs

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

bench: install ## what an avoided exit saves, and what verification costs: report and plots in bench/results
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/devbc bench --output bench/results
	$(BIN)/python -m bench.verification

docs: install ## regenerate the generated pages and headers
	$(BIN)/python -m devbc.cli.manual docs/diagnostics.md
	$(BIN)/python -m devbc.program.c_header devbc/include/devbc.h

install: $(READY)

# A fresh Debian has python3 without ensurepip; its package is the one thing that pip cannot bring.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "devbc needs Python 3.11 or newer: set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "python3-venv is missing, installing it" >&2; \
		sudo=$$([ $$(id -u) = 0 ] || echo sudo); \
		$$sudo apt-get update -qq && $$sudo apt-get install -y -qq python3-venv; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
