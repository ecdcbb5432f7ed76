#!/bin/bash
# Runs a program as a test: it passes if the program exits with 0 and has said something on stdout.
#
#     smoke_test.sh BINARY [ARGUMENT...]
set -u -o pipefail

output=$("$@" | tee >(cat >&2)) || { echo "exit status $?: $*" && exit 1; }
[[ -n $output ]] || { echo "no output: $*" && exit 1; }
# Google Benchmark exits with 0 after a benchmark that reports an error.
! grep -q 'ERROR OCCURRED' <<<"$output" || exit 1
