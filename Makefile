# Each target first sets up the environment that it needs, so `make demo` and `make test` work on a
# fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-fast test-slow chaos chaos-short lint up format clean

demo: $(READY)
	$(BIN)/stylefilter demo

up: $(READY)
	$(BIN)/stylefilter up

# Processes that run tests side by side: each with services of its own, and whole test modules.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

test: $(READY)
	$(PYTEST) -m 'not slow and not chaos'

# Neither processes nor services nor a server nor training, nor anything else that takes seconds.
FAST := not (slow or chaos or services or processes or http or training or heavy)
test-fast: $(READY)
	$(PYTEST) -m '$(FAST)'

test-slow: $(READY)
	$(PYTEST) -m slow

# Inject each fault ROUNDS times, at random moments of running jobs. Ten rounds take one to two hours.
ROUNDS ?= 10
chaos: $(READY)
	STYLEFILTER_CHAOS_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -m chaos tests/chaos

chaos-short: $(READY)
	$(BIN)/python -m pytest -m chaos tests/chaos \
	  -k 'server_mode and (trainer_killed or worker_frozen or database_restarted or redis_restarted)'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
