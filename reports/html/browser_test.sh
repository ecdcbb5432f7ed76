#!/bin/bash
# browser_test.sh BROWSER_TEST_PY SAMPLE_REPORT: for Bazel, whose own rules for Python are not used here.
exec python3 "$@"
