# Every target sets up what it needs. Two environments: one for serving (lean, no torch), one for everything else.
PYTHON ?= python3
ARGS =
# Only what is said to make itself: a shell's own HOST means something else, and PARSEQ_PORT must keep its meaning.
OPTIONS = $(if $(filter command line,$(origin HOST)),--host $(HOST)) $(if $(filter command line,$(origin PORT)),--port $(PORT))

SERVE_ENV := .venv-serve
DEV_ENV := .venv
SERVE_READY := $(SERVE_ENV)/.ready
DEV_READY := $(DEV_ENV)/.ready
DEV_BIN := $(DEV_ENV)/bin
GPU_ENV := .venv-gpu
GPU_READY := $(GPU_ENV)/.ready
GPU_GRAPHS := build/gpu-graphs
PIP := -m pip --disable-pip-version-check --quiet install

.DEFAULT_GOAL := help
.PHONY: help serve dev test lint format export train evaluate benchmark convert render verify-gpu-placement clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(SERVE_READY) ## Start the service with the bundled model: make serve PORT=8000 HOST=0.0.0.0
	exec $(SERVE_ENV)/bin/parseq-serve $(strip $(OPTIONS) $(ARGS))

dev: $(DEV_READY) ## Set up the development environment in .venv: parseq-read, parseq-export, parseq-train, ...

test: lint ## Lint, check types and run all tests
	$(DEV_BIN)/pytest $(ARGS)

lint: $(DEV_READY) ## Check style and types
	$(DEV_BIN)/ruff check .
	$(DEV_BIN)/ruff format --check .
	$(DEV_BIN)/mypy

format: $(DEV_READY) ## Format the code
	$(DEV_BIN)/ruff format .
	$(DEV_BIN)/ruff check --fix .

export: $(DEV_READY) ## Export a model: make export ARGS='--model parseq-nano --output model.onnx'
	$(DEV_BIN)/parseq-export $(ARGS)

train: $(DEV_READY) ## Train a model: make train ARGS='--synthetic crops --output runs/mine'
	$(DEV_BIN)/parseq-train $(ARGS)

evaluate: $(DEV_READY) ## Score a model: make evaluate ARGS='--data data/test --charset 36 94'
	$(DEV_BIN)/parseq-evaluate $(ARGS)

benchmark: $(DEV_READY) ## Measure a model: make benchmark ARGS='--model parseq-nano --plot latency.png'
	$(DEV_BIN)/parseq-benchmark $(ARGS)

convert: $(DEV_READY) ## Build an LMDB from image files: make convert ARGS='photos data/train/real/mine'
	$(DEV_BIN)/parseq-convert $(ARGS)

render: $(DEV_READY) ## Render crops to train on: make render ARGS='--output crops --count 100000 --split train'
	$(DEV_BIN)/python -m model.synth $(ARGS)

verify-gpu-placement: $(DEV_READY) $(GPU_READY) ## Show where CUDA would run exported graphs; needs gcc and 2.5 GB, no GPU
	$(DEV_BIN)/python -m export.gpu_graphs $(GPU_GRAPHS)
	$(GPU_ENV)/bin/python -m export.gpu_placement $(GPU_GRAPHS)/*.onnx

clean: ## Remove the environments and caches
	rm -rf $(SERVE_ENV) $(DEV_ENV) $(GPU_ENV) $(GPU_GRAPHS) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(SERVE_READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.12")'
	@echo "Installing the service into $(SERVE_ENV) (230 MB; once)"
	$(PYTHON) -m venv $(SERVE_ENV)
	$(SERVE_ENV)/bin/python $(PIP) -c constraints.txt -e '.[cpu]'
	@touch $@

$(DEV_READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.12")'
	@echo "Installing everything into $(DEV_ENV) (1.4 GB with the CPU build of PyTorch; once, some minutes)"
	$(PYTHON) -m venv $(DEV_ENV)
	$(DEV_ENV)/bin/python $(PIP) -c constraints.txt -e '.[cpu,export,train,dev]'
	@touch $@

$(GPU_READY):
	$(PYTHON) -m venv $(GPU_ENV)
	$(GPU_ENV)/bin/python $(PIP) 'onnxruntime-gpu[cuda,cudnn]'
	@touch $@
