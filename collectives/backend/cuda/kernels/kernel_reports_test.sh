#!/bin/bash
# What ptxas says of the kernels: kernel_reports_test.sh KERNELS REPORT...
#
# Every kernel is there for sm_80 and for sm_90a, and none spills or has a stack frame. Prints the most registers of any.
set -u

wanted=$1
shift

wrong=0
for arch in sm_80 sm_90a; do
  kernels=$(cat "$@" | grep -c "Compiling entry function .* for '$arch'")
  ((kernels == wanted)) || { echo "$kernels kernels for $arch, not $wanted" && wrong=1; }
done
framed=$(cat "$@" | grep "bytes stack frame" | grep -vc "^ *0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads")
((framed == 0)) || { echo "$framed kernels have a stack frame" && wrong=1; }
most=$(cat "$@" | grep -o "Used [0-9]* registers" | sort -k2,2nr | head -n 1)
echo "$most at most"
[[ -n $most ]] || wrong=1
exit "$wrong"
