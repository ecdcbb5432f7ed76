#!/bin/bash
# What nvcc.sh makes of what nvcc says: nvcc_test.sh NVCC_SH
set -u
# The last part of a pipeline sets `wrong` here, not in a shell of its own.
shopt -s lastpipe

nvcc_sh=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
wrong=0

cat >"$folder/nvcc" <<'END'
#!/bin/bash
cat "$1" && exit "$2"
END
chmod +x "$folder/nvcc"

properties() {
  echo "ptxas info    : 0 bytes gmem"
  echo "ptxas info    : Compiling entry function '$1' for 'sm_80'"
  echo "ptxas info    : Function properties for $1"
  echo "    16 bytes stack frame, $2 bytes spill stores, $3 bytes spill loads"
  echo "ptxas info    : Used 40 registers, used 1 barriers"
}

# expect WHAT EXIT_STATUS TEXT NVCC_STATUS: with what is on stdin as the output of nvcc. TEXT is a pattern for stderr.
expect() {
  cat >"$folder/says"
  "$nvcc_sh" "$folder/nvcc" "$folder/report" "$folder/says" "$4" 2>"$folder/log"
  local status=$?
  if ((status != $2)) || ! grep -q "$3" <<<"$(<"$folder/log")" || ! cmp -s "$folder/says" "$folder/report"; then
    echo "$1: status $status, said: $(<"$folder/log")"
    wrong=1
  fi
}

{ properties First 0 0 && properties Second 0 0; } | expect "no spills" 0 '^$' 0
{ properties First 0 0 && properties Second 8 12; } | expect "spills" 1 'Second for sm_80: 8 bytes stored, 12 loaded' 0
properties First 0 4 | expect "loads only" 1 'First for sm_80: 0 bytes stored, 4 loaded' 0
properties _ZN1a1fIfEEvv 8 8 | expect "demangled" 1 'void a::f<float>() for sm_80' 0
echo "ptxas info    : 0 bytes gmem" | expect "no report" 1 'no kernel is reported' 0
echo "f.cu(3): error: expected a ;" | expect "an error of the compiler" 1 'expected a ;' 2
exit "$wrong"
