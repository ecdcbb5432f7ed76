#!/bin/bash
# Fuzzes everything that is read: fuzz.sh SECONDS [TARGET...]
#
# Builds tools/fuzz/TARGET.cc with clang's libFuzzer and AddressSanitizer, outside of Bazel, and runs each for its share of
# SECONDS, starting from tools/fuzz/corpus/TARGET. What it finds on its way is kept in .cache/fuzz/TARGET, which git
# ignores, and found again by the next run. Ends with 1 if anything broke; the input is then in .cache/fuzz/TARGET.broken.
set -u -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
if (($# == 0)); then
  sed -n 's/^# \{0,1\}//; 2,3p' "${BASH_SOURCE[0]}"
  exit 2
fi
command -v clang++ >/dev/null || {
  echo "fuzz.sh needs clang++: tools/bazel/install.sh --dev" >&2
  exit 6
}

seconds=$1
shift
targets=("$@")
if ((${#targets[@]} == 0)); then
  for folder in tools/fuzz/corpus/*/; do targets+=("$(basename "$folder")"); done
fi

# What each target is linked with. The reports need no more than their own folder.
sources() {
  case $1 in
    schedule_csv) echo pipeline/{schedule,schedule_csv}.cc ;;
    model_config) echo layers/models/{json_reader,model_config}.cc ;;
    gate_policy) echo reports/gate/policy.cc ;;
    result_file) echo reports/{result_file,record,key,json_io}.cc ;;
    *) echo "reports/$1.cc" reports/json_io.cc ;;
  esac
  echo reference/status.cc
}

flags=(-std=c++20 -O1 -g -fno-omit-frame-pointer -UNDEBUG -I. "-fsanitize=fuzzer,address")
build=.cache/fuzz/bin
mkdir -p "$build" .cache/fuzz/objects
object() { echo ".cache/fuzz/objects/${1//\//_}.o"; }
all=()
for target in "${targets[@]}"; do
  [[ -f tools/fuzz/$target.cc ]] || {
    echo "there is no tools/fuzz/$target.cc" >&2
    exit 2
  }
  read -ra files <<<"$(sources "$target" | xargs)"
  all+=("tools/fuzz/$target.cc" "${files[@]}")
done
echo "==== building ${targets[*]}"
# Each source once, where it is new or older than a header.
newest=$(find reference reports layers/models pipeline tools/fuzz -name '*.h' -printf '%T@ %p\n' | sort -n | tail -n 1)
newest=${newest#* }
compile() {
  echo "$1"
  clang++ "${flags[@]}" -c "$1" -o "$(object "$1")" || rm -f "$(object "$1")"
}
running=0
for source in $(printf '%s\n' "${all[@]}" | sort -u); do
  at=$(object "$source")
  [[ $at -nt $source && $at -nt $newest ]] && continue
  if ((running == $(nproc))); then
    wait -n
    ((running -= 1))
  fi
  compile "$source" &
  ((running += 1))
done
wait
for target in "${targets[@]}"; do
  objects=("$(object "tools/fuzz/$target.cc")")
  for source in $(sources "$target"); do objects+=("$(object "$source")"); done
  clang++ "${flags[@]}" "${objects[@]}" -lfmt -o "$build/$target" || exit 6
done
broken=()
((seconds > 0)) || exit 0  # Only to build them.
share=$(((seconds + ${#targets[@]} - 1) / ${#targets[@]}))
for target in "${targets[@]}"; do
  echo "==== $target: $share s"
  found=.cache/fuzz/$target
  mkdir -p "$found"
  "$build/$target" -max_total_time="$share" -timeout=10 -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 \
    -artifact_prefix="$found.broken-" "$found" "tools/fuzz/corpus/$target" >"$found.log" 2>&1 || {
    broken+=("$target")
    grep -aE "^(broken|SUMMARY|==)|ERROR|Assertion|Test unit" "$found.log"
  }
  grep -a "number_of_executed_units" "$found.log"
done
if ((${#broken[@]})); then
  echo "broken: ${broken[*]}; replay with $build/TARGET .cache/fuzz/TARGET.broken-..."
  exit 1
fi
echo "nothing broke"
