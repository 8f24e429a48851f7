#!/bin/sh
# The kernels' tests with the kernels compiled for AddressSanitizer and UndefinedBehaviorSanitizer: any finding ends the process.
# Needs g++ with its sanitizer libraries. PYTHON: the interpreter. Arguments go to pytest.
#
# -ffast-math stays, since that is what users run: the compiler may assume that no number is NaN or infinite, and neither sanitizer
# looks at that. -O1: the checks at -O3 compile for minutes. Python itself leaks at its end, so leaks are not counted. A file that
# is cut off under its mapping is the tests' own doing, and its SIGBUS theirs to handle.
set -eu
cd "$(dirname "$0")/.."
compiler=${CXX:-g++}
libraries="$($compiler -print-file-name=libasan.so) $($compiler -print-file-name=libubsan.so)"
export SPOUTNIK_NATIVE_FLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
export ASAN_OPTIONS=detect_leaks=0:handle_sigbus=0 UBSAN_OPTIONS=print_stacktrace=1
LD_PRELOAD="$libraries" exec "${PYTHON:-.venv/bin/python}" -m pytest -p no:cacheprovider -q \
    -k "not processor_with_narrower_registers and not without_a_compiler" \
    tests/native tests/model/test_kernels.py tests/model/test_native.py tests/model/test_gguf_decode.py tests/engine/quantization \
    tests/engine/runners tests/engine/test_sampler.py "$@"
