# Two commands, each with all of its set-up: `make start` and `make test`. `make help` explains them.

VENV ?= .venv
ARGS ?=
# Tests that run side by side: most of them wait more than they work.
WORKERS ?= 2
# Of tests that start processes, on a machine that lets them wait; each is named at the end. See tests/README.md.
SECOND_TRIES = --max-suite-reruns 3 --rerun-show-tracebacks
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)

.PHONY: help start test wheel lock python

help:
	@echo 'make start   a cluster in the foreground, on 127.0.0.1:7379; Ctrl-C ends it'
	@echo 'make test    everything that decides whether a change is good: format, lint, types, all tests'
	@echo 'make wheel   a sdist, a wheel and its bill of materials in dist/, the wheel tried where there is no compiler'
	@echo 'make lock    the releases and hashes that the image is made of, brought up to date'
	@echo
	@echo 'The first two install what they need into $(VENV) and compile what has changed since the last time.'
	@echo 'ARGS="..." goes to `kache cluster start` or `pytest`: make start ARGS="--shards 4 --maxmemory 1gb"'
	@echo 'PYTHON=python3.12 chooses a Python, VENV=directory another place, WORKERS=4 how many tests run side by side.'

start: python
	@$(PYTHON) deploy/environment.py $(VENV)
	@exec $(VENV)/bin/kache cluster start $(ARGS)

test: python
	@$(PYTHON) deploy/environment.py $(VENV) test
	@exec $(VENV)/bin/pytest --numprocesses $(WORKERS) --dist loadfile $(SECOND_TRIES) $(ARGS)

wheel: python
	@PYTHON=$(PYTHON) exec deploy/wheel.sh

lock: python
	@PYTHON=$(PYTHON) exec deploy/lock.sh

python:
	@$(or $(PYTHON),false) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
	echo 'Kache needs Python 3.11 or newer; $(or $(PYTHON),python3) is missing or older: get one (Debian: apt-get install' \
	'python3 python3-venv; Fedora: dnf install python3; macOS: brew install python), or name one: make start PYTHON=...' >&2; \
	exit 1; }
