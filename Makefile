# What developers and .ci/run do alike. PYTHON is the interpreter of a virtual environment with `pip install -e ".[dev]"`.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python)

.PHONY: help test test-unit check fmt lock

help:
	@echo "make test    everything by pytest, on a real Postgres and a real Ray"
	@echo "make test-unit  what needs neither Postgres nor Ray, in about a minute"
	@echo "make check   lint, format, types, layers; changes nothing"
	@echo "make fmt     format, and mend what can be mended by rule"
	@echo "make lock    requirements.lock again, from pyproject.toml"

test:
	$(PYTHON) -m pytest

test-unit:
	$(PYTHON) -m pytest -q tests/unit

check:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -c "from importlinter.cli import lint_imports_command as lint; lint()"

fmt:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

# What the image installs: Linux on x86-64, Python 3.11. Names no registry, so it serves behind any mirror.
# For what is newer: make lock LOCK_FLAGS=--upgrade
lock:
	$(PYTHON) -m pip install --quiet uv
	$(PYTHON) -m uv pip compile pyproject.toml --extra examples --extra s3 --extra alerts --extra oidc --output-file requirements.lock --generate-hashes \
	    --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --no-emit-index-url --no-header --quiet $(LOCK_FLAGS)
