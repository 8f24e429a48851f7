#!/bin/sh
# One call on a bare CUDA machine, at most eight minutes: the tests marked cuda, decoding against the memory's bandwidth, prefill
# against the products' peak, steps of fine-tuning and of GRPO at 135M and 1.5B parameters against TRL (and decoding against vLLM)
# where these are installed, peak memory. The last line is one JSON object, which is also written to gpu.json (or --out FILE).
#
#     benchmarks/gpu.sh            benchmarks/gpu.sh --cpu       (the same at toy sizes on the processor: does it all run?)
#
# PYTHON: an interpreter whose torch sees the GPU; without it the first of .venv, python3 and a new .venv-gpu that does.
set -eu
cd "$(dirname "$0")/.."
began=$(date +%s)
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
sees="import sys, torch; sys.exit(not (torch.cuda.is_available() or '--cpu' in sys.argv))"

choose() {
    for python in "${PYTHON:-}" .venv/bin/python .venv-gpu/bin/python python3; do
        if [ -n "$python" ] && "$python" -c "$sees" "$@" 2>/dev/null; then echo "$python"; return; fi
    done
}

python=$(choose "$@")
if [ -z "$python" ]; then
    echo "No Python here has a torch that sees a GPU: making .venv-gpu" >&2
    python3 -m venv .venv-gpu
    .venv-gpu/bin/python -m pip install --quiet -e '.[dev]' trl peft datasets || .venv-gpu/bin/python -m pip install --quiet -e '.[dev]'
    python=$(choose "$@")
    [ -n "$python" ] || { echo "torch in .venv-gpu sees no GPU either: install the driver, or name an interpreter in PYTHON" >&2; exit 2; }
fi
"$python" -c "import spoutnik.commands.main, pytest" 2>/dev/null ||
    "$python" -m pip install --quiet -e '.[dev]' ||
    { echo "$python: Spoutnik's dependencies are missing, and pip could not install them" >&2; exit 2; }
exec "$python" benchmarks/gpu.py --seconds $((470 - $(date +%s) + began)) "$@"
