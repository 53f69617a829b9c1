# `make demo` and `make test` build .venv on first use; PYTHON=... picks the interpreter (3.11 or newer).
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin

.PHONY: demo test lint crosscheck kills clean

demo: .venv/installed
	$(BIN)/python launch.py --config=configs/ablations/demo.py

test: .venv/installed lint
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Against diffusers, torch-fidelity, torchvision and transformers, in an environment of its own, because they need torch; and
# Pillow's test images, which its source holds.
crosscheck: .venv-crosscheck/installed .venv-crosscheck/pillow
	PILLOW_SDIST=$$(echo .venv-crosscheck/pillow/*.tar.gz) \
		.venv-crosscheck/bin/python -m pytest tests/crosscheck/check_diffusers.py tests/crosscheck/check_interop.py \
		tests/crosscheck/check_fidelity.py tests/crosscheck/check_features.py tests/crosscheck/check_images.py

.venv-crosscheck/pillow: .venv-crosscheck/installed
	.venv-crosscheck/bin/python -m pip download --quiet --constraint constraints.txt --no-deps --no-binary pillow --dest $@ pillow

# Runs of two processes; and a run killed twenty times at random moments, in one process and in two, ends bit for bit as one that
# was not.
kills: .venv/installed
	$(BIN)/python -m pytest -s tests/kills/check_hosts.py tests/kills/check_kills.py

# Another Python brings another jax (constraints.txt): `make steps-3.12` has every variant take a step there.
steps-%: .venv-%/installed
	.venv-$*/bin/python -m pytest tests/configs/test_configs.py -k "takes_a_step and plane3d"

.PRECIOUS: .venv-%/installed
.venv-%/installed: setup.cfg pyproject.toml constraints.txt
	test -x .venv-$*/bin/python || python$* -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

.venv-crosscheck/installed: setup.cfg constraints.txt tests/crosscheck/requirements.txt
	test -x .venv-crosscheck/bin/python || $(PYTHON) -m venv .venv-crosscheck
	.venv-crosscheck/bin/python -m pip install --quiet --constraint constraints.txt --requirement tests/crosscheck/requirements.txt \
		--editable . pytest
	@touch $@

.venv/installed: setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found: install one, or name it with PYTHON=/path/to/python" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf .venv .venv-*
