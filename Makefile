# Every target sets itself up: python3 and make are enough on a fresh machine.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PART   ?= all
# Byte code is kept, whatever the machine says: else every process of the tests compiles every module again.
export PYTHONDONTWRITEBYTECODE :=
# make demo DATA=path runs the demo on a measured file instead of a simulated one
DATA   ?=

.PHONY: demo test crash safety safety-long bench check viewer docs lock clean

demo: $(VENV)/.runtime
	$(BIN)/lightkeep demo $(if $(DATA),--data "$(DATA)")

# Three at a time: many tests wait for another process.
test: $(VENV)/.dev
	@$(MAKE) --no-print-directory -j 3 --output-sync check services $(VENV)/.byte-code
	scripts/with-postgres $(BIN)/pytest -n 3 --dist worksteal -m "not cluster and not crash and not fault" $(PYTEST_ARGS)

# Every point at which ingest can be killed, instead of the sample that `make safety` takes: about ten minutes.
crash: services
	LIGHTKEEP_CRASH_POINTS=all $(BIN)/pytest tests/crash $(PYTEST_ARGS)

# Simulator, crash points, model check, mutants and faults: about twenty minutes; figures in build/safety.json.
safety: services
	scripts/with-postgres $(BIN)/python tests/safety/run.py

safety-long: services
	scripts/with-postgres $(BIN)/python tests/safety/run.py --long --minutes 100

# Engines, remote sites and workers on a real Slurm, Dask and PostgreSQL: minutes; figures in build/cluster.json.
# What is measured runs alone; the rest, which mostly waits, three at a time.
MEASURED := $(addprefix tests/cluster/test_, engines.py overhead.py queue.py)
.PHONY: cluster
cluster: services
	scripts/install-cluster
	rm -f build/cluster.json
	scripts/with-postgres scripts/with-slurm $(BIN)/pytest $(MEASURED) -m cluster -p no:randomly $(PYTEST_ARGS)
	scripts/with-postgres scripts/with-slurm $(BIN)/pytest tests/cluster $(MEASURED:%=--ignore=%) -m cluster \
	  -n 3 --dist loadgroup -p no:randomly $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

.PHONY: services
services: $(VENV)/.dev
	scripts/install-services

bench: $(VENV)/.dev
	$(BIN)/python -m bench $(PART)

# The committed h5web viewer, fonts, htmx and Plotly, rebuilt from frontend/ (needs npm).
viewer:
	cd frontend && npm ci && npm run build

docs: $(VENV)/.dev
	$(BIN)/sphinx-build -W -q -b html docs build/docs
	@echo "docs: build/docs/index.html"

# What runs the product; what also tests, documents and measures it. Both are exact, by hash.
$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/pip
	@test -e $(VENV)/.dev || $(BIN)/pip install -q --require-hashes -r requirements.lock
	@$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/pip
	@$(BIN)/pip install -q --no-compile --no-deps --require-hashes -r requirements-dev.lock
	@$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.runtime

# Collecting makes byte code of tests, of modules and of the third of the packages that they use, once, while mypy has
# one core; else each worker would.
$(VENV)/.byte-code: $(VENV)/.dev
	@$(BIN)/pytest --collect-only -q >/dev/null && touch $@ || true

$(VENV)/bin/pip:
	scripts/make-venv "$(PYTHON)" $(VENV)

lock: $(VENV)/.dev
	scripts/lock

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache
