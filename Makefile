# setup · lint · types · test · stress · check-published · bench · bench-compare · bench-dataset · demo
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup lint types test stress check check-published bench bench-compare bench-dataset demo

.venv/.runs: pyproject.toml constraints.txt
	@echo "Installing torch for the CPU and what the program needs into .venv: some minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python .ci/install_torch.py constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.develops: .venv/.runs
	@echo "Installing what its development needs: some minutes more."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

setup: .venv/.develops

demo: .venv/.runs
	$(BIN)/ss4d run examples/clips/bird.mp4 --out output
	$(BIN)/ss4d report output/runs/bird

lint: .venv/.develops
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: .venv/.develops
	$(BIN)/mypy

test: .venv/.develops
	$(BIN)/python -m pytest --numprocesses logical --dist loadfile

# Kills hundreds of runs and writers, other ones each time, as every run of the tests does with fewer.
stress: .venv/.develops
	$(BIN)/python -m pytest tests/pipelines/test_run_crash.py tests/storage/test_store_crash.py --timeout 3600 --kills 20

check: lint types test

# The published size from an image to its asset, with random weights: minutes, 4 GB of the temporary folder.
check-published: .venv/.develops
	$(BIN)/python tests/published.py

# Minutes each; `ss4d bench --help` says how to measure other sizes and devices, and --out keeps a report.
bench: .venv/.develops
	$(BIN)/ss4d bench
	$(BIN)/python -m tests.benchmarks.rasterize

bench-compare: .venv/.develops
	$(BIN)/python -m tests.benchmarks.compare $(OLD) $(NEW)

# An hour; docs/benchmarks.md has the tables and says how to measure a part.
bench-dataset: .venv/.develops
	$(BIN)/python -m tests.benchmarks.dataset
