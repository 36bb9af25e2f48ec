# setup · lint · types · test · fuzz · faults · stress · check-published · bench · bench-compare · bench-dataset · bench-fit · bench-mesh · bench-segmentation · demo · pins
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup lint types test fuzz faults stress check check-published bench bench-compare bench-dataset bench-fit bench-mesh bench-segmentation demo pins

# Everything is installed as requirements/ pins it, and refused if its hash is another. Nothing is built on the way but
# the project itself, since what builds a package would come unchecked.
PIP := $(BIN)/python -m pip install --quiet --no-deps
CHECKED := $(PIP) --require-hashes --only-binary :all: --requirement

.venv/.runs: pyproject.toml requirements/torch.txt requirements/run.txt
	@echo "Installing torch for the CPU and what the program needs into .venv: some minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python .ci/install_torch.py requirements
	$(CHECKED) requirements/run.txt
	$(PIP) --no-build-isolation --editable .
	$(BIN)/python -m pip check
	touch $@

.venv/.develops: .venv/.runs requirements/develop.txt
	@echo "Installing what its development needs: some minutes more."
	$(CHECKED) requirements/develop.txt
	$(BIN)/python -m pip check
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

# Damaged files of every kind, other ones each time; `make fuzz SECONDS=3600` for longer.
SECONDS ?= 60
fuzz: .venv/.develops
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

# Lets every call of a small run fail, on a folder and on S3: half an hour.
faults: .venv/.develops
	$(BIN)/python -m tests.faults

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

# Minutes: runs of 32 and 96 frames with and without fits, stage by stage.
bench-fit: .venv/.develops
	$(BIN)/python -m tests.benchmarks.fitting 32 96

# A minute: what meshes are like and cost; RUNS="output/runs/bird" measures those of runs, too.
bench-mesh: .venv/.develops
	$(BIN)/python -m tests.benchmarks.meshing $(RUNS)

# A quarter of an hour: IoU and CPU seconds of ways to find an object, on clips that it makes; docs/benchmarks.md says more.
bench-segmentation: .venv/.develops
	$(BIN)/python -m tests.benchmarks.segmentation

# An hour; docs/benchmarks.md has the tables and says how to measure a part.
bench-dataset: .venv/.develops
	$(BIN)/python -m tests.benchmarks.dataset

# After a change of the dependencies; UPGRADE=--upgrade takes the newest. CUDA's list comes first, and leads the others.
COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --custom-compile-command 'make pins' $(UPGRADE)
ON_CPU := --no-emit-package torch --excludes requirements/cuda_only.in

pins: .venv/.runs
	$(CHECKED) requirements/uv.txt
	$(COMPILE) pyproject.toml --group build --output-file requirements/cuda.txt
	$(COMPILE) pyproject.toml --group build --extra cuda --constraint requirements/cuda.txt --output-file requirements/cuda_kernels.txt
	$(COMPILE) pyproject.toml --group build $(ON_CPU) --constraint requirements/cuda.txt --output-file requirements/run.txt
	$(COMPILE) pyproject.toml --group build $(ON_CPU) --extra dev --constraint requirements/cuda_kernels.txt --output-file requirements/develop.txt
	$(COMPILE) --group pins --output-file requirements/uv.txt
