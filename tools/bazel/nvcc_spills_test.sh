#!/bin/bash
# A kernel that spills does not compile, and one that does not spill does.
#
#     nvcc_spills_test.sh NVCC_SH NVCC HOST_COMPILER SOURCE
set -u

nvcc_sh=$1 nvcc=$2 compiler=$3 source=$4
folder=${TEST_TMPDIR:-$(mktemp -d)}
export PATH=/usr/bin:/bin
flags=("-gencode=arch=compute_90a,code=sm_90a" "-ccbin=$compiler" -Xptxas=-v -c "$source" -o "$folder/kernel.o")

"$nvcc_sh" "$nvcc" "$folder/report" "${flags[@]}" || { echo "a kernel that does not spill was refused" && exit 1; }
grep -q "AddUp" "$folder/report" || { echo "the report does not name the kernel" && exit 1; }

"$nvcc_sh" "$nvcc" "$folder/report" -DSPILLS "${flags[@]}" 2>"$folder/log" && echo "a kernel that spills was not refused" && exit 1
cat "$folder/log"
grep -Eq "AddUp for sm_90a: [1-9][0-9]* bytes stored" "$folder/log" || { echo "the kernel that spills is not named" && exit 1; }
