#!/bin/bash
# What parsers of another hand make of the exports: exports_test.sh WRITER CHECK
set -eu

folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/exports.XXXXXX") || exit 1
trap 'rm -rf "$folder"' EXIT
"$1" "$folder"
python3 "$2" "$folder"
