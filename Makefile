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
OLDEST_ENV := .venv-oldest
OLDEST_READY := $(OLDEST_ENV)/.ready
RAY_ENV := .venv-ray
RAY_READY := $(RAY_ENV)/.ready
GPU_ENV := .venv-gpu
GPU_READY := $(GPU_ENV)/.ready
GPU_GRAPHS := build/gpu-graphs
GPU_MATERIAL := build/gpu-material
GPU_MATERIAL_READY := $(GPU_MATERIAL)/contents.json
# Digests and test images are random to the eye; keys and passwords have other signs. A line without letters and digits has none, and
# looking at each of them with every plug-in takes a fifth of the time.
SECRET_OPTIONS := --disable-plugin HexHighEntropyString --disable-plugin Base64HighEntropyString \
	--exclude-lines '^\W*$$'
# What the images install, with hashes; where it is written is up to whoever asks.
REQUIREMENTS ?= docker/requirements-cpu.txt
SBOM ?= build/sbom.cdx.json
PIP := -m pip --disable-pip-version-check --quiet install

# A process more than there are cores, up to four: now and then one waits for a server or a client that it started.
CORES := $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
AT_ONCE := --numprocesses $(shell echo $$(($(CORES) < 4 ? $(CORES) + 1 : 4))) --dist worksteal
# $(1) is the folder of the programs. Without the tools of the deployment (no network) only the tests that need them fail, and say
# so.
fetch_tools = $(1)/python -m tests.deployment.tools
# pytest ends with 5 when ARGS leaves it nothing to run.
run_at_once = $(1)/pytest $(AT_ONCE) -m 'not serial' $(ARGS) || [ $$? -eq 5 ]
run_alone = $(1)/pytest -m serial $(or $(ARGS),tests/reliability) || [ $$? -eq 5 ]
CHECKS := lint-types lint-style lint-security lint-secrets
LINT_REPORT := build/lint.txt

# What the first of a hundred processes compiles, the others need not: where it is not kept, each start takes a sixth more.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help serve dev test test-fast test-oldest tools lint format export train evaluate benchmark convert render clean
.PHONY: test-at-once lint-report $(CHECKS)
.PHONY: verify-gpu verify-gpu-bundle verify-gpu-placement gpu-here
.PHONY: verify-images verify-dashboard verify-wheel verify-ray release
.PHONY: docs fuzz hostile sbom chromium
.PHONY: api-fuzz overload siege soak rolling-restart

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(SERVE_READY) ## Start the service with the bundled model: make serve PORT=8000 HOST=0.0.0.0
	exec $(SERVE_ENV)/bin/parseq-serve $(strip $(OPTIONS) $(ARGS))

dev: $(DEV_READY) ## Set up the development environment in .venv: parseq-read, parseq-export, parseq-train, ...

# What the checks say comes in one piece after the tests beside which they run.
test: $(DEV_READY) ## Lint, check types and run all tests
	-$(call fetch_tools,$(DEV_BIN))
	@mkdir -p $(dir $(LINT_REPORT))
	@$(MAKE) --no-print-directory --jobs 2 --keep-going test-at-once lint-report; code=$$?; cat $(LINT_REPORT); exit $$code
	$(call run_alone,$(DEV_BIN))

test-at-once:
	$(call run_at_once,$(DEV_BIN))

lint-report:
	@$(MAKE) --no-print-directory $(CHECKS) >$(LINT_REPORT) 2>&1 || { echo 'make lint fails: see below' >&2; exit 1; }

test-fast: $(DEV_READY) ## Run the unit, property and golden tests but those that train or take seconds each
	$(DEV_BIN)/pytest $(AT_ONCE) -m 'not slow' tests/unit tests/property tests/golden $(ARGS)

test-oldest: $(OLDEST_READY) ## Run all tests with the oldest versions that pyproject.toml allows
	-$(call fetch_tools,$(OLDEST_ENV)/bin)
	$(call run_at_once,$(OLDEST_ENV)/bin)
	$(call run_alone,$(OLDEST_ENV)/bin)

tools: $(DEV_READY) ## Fetch the programs that check the deployment, those that are not installed (260 MB; make test does it)
	$(DEV_BIN)/python -m tests.deployment.tools

chromium: $(DEV_READY) ## Install the browser in which make test tries the page at /, where there is none (150 MB)
	$(DEV_BIN)/playwright install --with-deps chromium

lint: $(DEV_READY) ## Check style, types, insecure code and secrets
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target $(CHECKS)

lint-types:
	$(DEV_BIN)/mypy

lint-style:
	$(DEV_BIN)/ruff check .
	$(DEV_BIN)/ruff format --check .

lint-security:
	$(DEV_BIN)/bandit --quiet --configfile pyproject.toml --recursive artifact service export model reading parseq_client parseq_service release benchmarks

lint-secrets:
	git ls-files -z | xargs -0 $(DEV_BIN)/python -m tests.secrets_hook $(SECRET_OPTIONS)

format: $(DEV_READY) ## Format the code
	$(DEV_BIN)/ruff format .
	$(DEV_BIN)/ruff check --fix .

export: $(DEV_READY) ## Export a model: make export ARGS='--model parseq-mini --output model.onnx'
	$(DEV_BIN)/parseq-export $(ARGS)

train: $(DEV_READY) ## Train a model: make train ARGS='--synthetic crops --output runs/mine'
	$(DEV_BIN)/parseq-train $(ARGS)

evaluate: $(DEV_READY) ## Score a model: make evaluate ARGS='--data data/test --charset 36 94'
	$(DEV_BIN)/parseq-evaluate $(ARGS)

benchmark: $(DEV_READY) ## Measure a model: make benchmark ARGS='--model parseq-mini --plot latency.png'
	$(DEV_BIN)/parseq-benchmark $(ARGS)

convert: $(DEV_READY) ## Build an LMDB from image files: make convert ARGS='photos data/train/real/mine'
	$(DEV_BIN)/parseq-convert $(ARGS)

render: $(DEV_READY) ## Render crops to train on: make render ARGS='--output crops --count 100000 --split train'
	$(DEV_BIN)/python -m model.synth $(ARGS)

api-fuzz: $(DEV_READY) ## Post thousands of cases to every endpoint, from the OpenAPI description; minutes
	$(DEV_BIN)/python -m tests.reliability.api_fuzz $(ARGS)

overload: $(DEV_READY) ## Offer four and ten times what the service can do; needs h2load (nghttp2-client)
	$(DEV_BIN)/python -m tests.reliability.overload $(ARGS)

siege: $(DEV_READY) ## Besiege the service with many attackers at once, beside good traffic; five minutes, wants a quiet machine
	$(DEV_BIN)/python -m tests.reliability.siege $(ARGS)

soak: $(DEV_READY) ## Half an hour of mixed traffic with faults: make soak ARGS='--minutes 10'
	$(DEV_BIN)/python -m tests.reliability.soak $(ARGS)

rolling-restart: tools ## Restart and kill two replicas behind the gateway under load
	$(DEV_BIN)/python -m tests.reliability.restarts $(ARGS)

# The first of the prerequisites, and so asked before minutes of work; ARGS may say that the CPU is to stand in.
gpu-here:
	@$(if $(findstring --stand-in,$(ARGS)),true,$(PYTHON) -m tests.gpu.driver)

verify-gpu: gpu-here $(DEV_READY) $(GPU_READY) $(GPU_MATERIAL_READY) ## Check everything on an NVIDIA GPU, in eight minutes (docs/gpu.md); first 4.6 GB and minutes
	$(GPU_ENV)/bin/python -m tests.gpu.verify $(GPU_MATERIAL) $(ARGS)

verify-gpu-bundle: $(DEV_READY) $(GPU_MATERIAL_READY) ## The same for a machine without package registries, in pieces: make verify-gpu-bundle ARGS='--python 3.12'
	$(DEV_BIN)/python -m tests.gpu.bundle $(GPU_MATERIAL) $(ARGS)

verify-gpu-placement: $(DEV_READY) $(GPU_READY) ## Show where CUDA would run exported graphs; needs gcc and 2.5 GB, no GPU
	$(DEV_BIN)/python -m tests.gpu.graphs $(GPU_GRAPHS)
	$(GPU_ENV)/bin/python -m tests.gpu.placement $(GPU_GRAPHS)/*.onnx

verify-images: tools ## Build both container images and run them; needs root on Debian or Ubuntu, 4 GB of disk and minutes
	$(PYTHON) docker/verify_images

verify-dashboard: tools ## Ask every expression of dashboard and rules of a real Prometheus under load; a minute
	$(DEV_BIN)/python -m tests.deployment.verify_dashboard

verify-wheel: $(DEV_READY) ## Build the wheel, install it into an empty environment, serve from it; a minute, 250 MB
	$(DEV_BIN)/python -m tests.deployment.verify_wheel

release: $(DEV_READY) ## Build what a release has, in dist/: wheel, sdist, SBOMs, provenance, checksums, notes (docs/releasing.md)
	$(DEV_BIN)/python -m release $(ARGS)

fuzz: $(DEV_READY) ## Read 100,000 broken image files and post 5,000: make fuzz ARGS='--seed 1'
	$(DEV_BIN)/python -m tests.fuzz $(ARGS)

hostile: $(DEV_READY) ## Post what is made to hurt, beside good traffic; wants a quiet machine
	$(DEV_BIN)/python -m tests.reliability.hostile

sbom: $(DEV_READY) ## Write a software bill of materials: make sbom REQUIREMENTS=docker/requirements-cpu.txt
	mkdir -p $(dir $(SBOM))
	$(DEV_BIN)/cyclonedx-py requirements --output-format JSON --output-file $(SBOM) $(REQUIREMENTS)
	@echo "$(SBOM) lists what $(REQUIREMENTS) installs (CycloneDX)"

verify-ray: $(RAY_READY) ## Run parseq-bulk on a real Ray, kill its actors and its driver; 900 MB of disk and minutes
	$(RAY_ENV)/bin/python -m pytest $(or $(ARGS),tests/ray_bulk.py)

docs: $(DEV_READY) ## Build the site of these docs into build/site; REPOSITORY=https://... is where links to files lead
	NO_MKDOCS_2_WARNING=1 $(DEV_BIN)/python -m mkdocs build --config-file docs/site/mkdocs.yml
	@echo "open build/site/index.html, or, for the search too: $(PYTHON) -m http.server --directory build/site 8080"

clean: ## Remove the environments and caches
	rm -rf $(SERVE_ENV) $(DEV_ENV) $(OLDEST_ENV) $(RAY_ENV) $(GPU_ENV) $(GPU_GRAPHS) $(GPU_MATERIAL) build/gpu-bundle* build/verify-gpu build/verify-images .cache/deployment-tools .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(SERVE_READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.12")'
	@echo "Installing the service and parseq-bulk into $(SERVE_ENV) (410 MB; once)"
	$(PYTHON) -m venv $(SERVE_ENV)
	$(SERVE_ENV)/bin/python $(PIP) -c constraints.txt -e '.[cpu]'
	@touch $@

$(DEV_READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.12")'
	@echo "Installing everything into $(DEV_ENV) (2.1 GB with the CPU build of PyTorch; once, some minutes)"
	$(PYTHON) -m venv $(DEV_ENV)
	$(DEV_ENV)/bin/python $(PIP) -c constraints.txt -e '.[cpu,export,train,dev]'
	@touch $@
	@echo "$(DEV_BIN) has parseq-train, parseq-export, parseq-evaluate and the others"

$(OLDEST_READY): pyproject.toml constraints-oldest.txt
	@echo "Installing the oldest versions that are allowed into $(OLDEST_ENV) (2.1 GB with the CPU build of PyTorch; once)"
	$(PYTHON) -m venv $(OLDEST_ENV)
	$(OLDEST_ENV)/bin/python $(PIP) -c constraints-oldest.txt -e '.[cpu,export,train,dev]'
	@touch $@

$(RAY_READY): pyproject.toml constraints.txt
	@echo "Installing parseq-bulk and Ray into $(RAY_ENV) (900 MB; once)"
	$(PYTHON) -m venv $(RAY_ENV)
	$(RAY_ENV)/bin/python $(PIP) -c constraints.txt -e '.[cpu,ray]' onnx pytest pytest-timeout
	@touch $@

# As the bundle has it: the service's own dependencies, and what benchmarks/ needs.
$(GPU_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(GPU_ENV)
	$(GPU_ENV)/bin/python $(PIP) -c constraints.txt -e '.[gpu]' onnx tqdm
	@touch $@

# What graphs and crops are made of: whoever changes it deletes the folder, or lets `make clean` do it.
$(GPU_MATERIAL_READY): $(DEV_READY)
	$(DEV_BIN)/python -m tests.gpu.write_material $(GPU_MATERIAL)
