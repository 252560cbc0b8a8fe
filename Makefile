# The two commands a newcomer needs: `make serve` and `make test`. Both first install what they need into .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SETUP := .venv/.setup
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
        --custom-compile-command 'make lock' --constraint constraints.txt pyproject.toml lock/build.in

.PHONY: serve test lint audit lock format setup builtin pictures examples clean

serve: $(READY)
	@echo
	@echo "Starting on http://127.0.0.1:$${INSPECT_PORT:-8000} . When it says it runs, open that in a browser, or try:"
	@echo
	@echo "  curl -H 'Content-Type: image/png' --data-binary @samples/scratch.png \\"
	@echo "       http://127.0.0.1:$${INSPECT_PORT:-8000}/v1/categories/machined-plate/inspect"
	@echo
	@$(BIN)/eca-inspect serve

# One process per core, at most four: each takes about 1 GB of memory. WORKERS=0 runs everything in one process.
WORKERS ?= auto
test: setup
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist loadgroup

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml docker-compose.postgres.yml
	sed 's/!reset//' docker-compose.cpu.yml | $(BIN)/check-jsonschema --builtin-schema vendor.compose-spec --default-filetype yaml -

# Known vulnerabilities of the pinned packages. If the vulnerability service cannot be reached, it warns and does not fail.
audit: setup
	$(BIN)/python .ci/audit.py

# Pins the packages of the Docker image with their hashes. Run it after each change of pyproject.toml or constraints.txt.
lock: setup
	$(LOCK) --extra otel --extra parquet --extra postgres --output-file lock/image.txt
	$(LOCK) --extra otel --extra parquet --extra postgres --extra ray --output-file lock/image-ray.txt

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Rebuilds everything that is built in: the category, its samples, the pictures of the docs and the examples of the API.
builtin: setup
	$(BIN)/python -m tools.builtin

# Only the pictures of the docs, with the existing category.
pictures: setup
	$(BIN)/python -m tools.pictures

# Only the examples of the API, with the existing category.
examples: setup
	$(BIN)/python -m tools.examples

# `READY` installs what the service needs; `SETUP` adds what tests and lint need.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

setup: $(SETUP)

$(SETUP): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache *.egg-info
