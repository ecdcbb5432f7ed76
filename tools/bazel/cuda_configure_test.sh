#!/bin/bash
# cuda_configure_test.sh TEST RULE
set -u
exec python3 -B "$1" "$2"
