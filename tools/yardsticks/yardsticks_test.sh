#!/bin/bash
# The unit tests of the yardsticks, with the program that reads their files.
#
#     yardsticks_test.sh TEST SHARDPROOF
set -u
exec python3 -B "$1" "$2"
