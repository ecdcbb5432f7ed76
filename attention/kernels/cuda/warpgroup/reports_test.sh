#!/bin/bash
# What ptxas says of the kernels of warpgroups: reports_test.sh KERNELS REPORT...
#
# Every kernel is there for sm_90a and for nothing else, none spills or has a stack frame, setmaxnreg is heeded, and no
# products wait for one another where the kernel does not say so ("wgmma.mma_async instructions are serialized").
set -u

wanted=$1
shift

wrong=0
kernels=$(cat "$@" | grep -c "Compiling entry function .* for 'sm_90a'")
((kernels == wanted)) || { echo "$kernels kernels for sm_90a, not $wanted" && wrong=1; }
others=$(cat "$@" | grep "Compiling entry function" | grep -vc "for 'sm_90a'")
((others == 0)) || { echo "$others kernels for other architectures" && wrong=1; }
framed=$(cat "$@" | grep "bytes stack frame" | grep -vc "^ *0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads")
((framed == 0)) || { echo "$framed kernels have a stack frame" && wrong=1; }
if cat "$@" | grep -iE "serialized|setmaxnreg|C75[0-9][0-9]"; then wrong=1; fi
cat "$@" | grep -o "Used [0-9]* registers" | sort | uniq -c
exit "$wrong"
