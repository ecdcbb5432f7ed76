#!/bin/bash
# Runs lint.py on a small tree, with a clang-tidy that notes what it is asked to look at and finds the word FINDING in it and
# in the headers that it includes.
set -u

export XDG_CACHE_HOME=$TEST_TMPDIR/cache
export CLANG_TIDY=$TEST_TMPDIR/clang-tidy
export LOOKED_AT=$TEST_TMPDIR/looked_at
tree=$TEST_TMPDIR/tree
mkdir -p "$tree/tools/ci" "$tree/a"
cp "$1" "$tree/tools/ci/lint.py"

cat >"$CLANG_TIDY" <<'END'
#!/bin/bash
for file; do [[ $file == *.cc ]] && break; done
headers=$(sed -n 's/^#include "\(.*\)"$/\1/p' "$file")
echo "$(grep -c '^// file' "$file") $file" >>"$LOOKED_AT"
[[ $* == *" -DBROKEN "* ]] && exit 1
# shellcheck disable=SC2086
! grep -H FINDING "$file" $headers
END
chmod +x "$CLANG_TIDY"

# flags, files. Bazel's folder is another in each checkout.
commands() {
  local flags=$1 file separator=''
  shift
  for file; do
    echo "$separator{\"file\": \"$file\", \"directory\": \"/\", \"arguments\": [\"gcc\", $flags \"-I\"," \
      "\"$tree/external/fmt\", \"-c\", \"$file\", \"-o\", \"$file.o\"]}"
    separator=,
  done
}
all() { { echo '['; commands "$1" a/one.cc a/two.cc a/three.cc; echo ']'; } >"$tree/compile_commands.json"; }

# what, the exit status, the last line, how many files each run of clang-tidy looked at; arguments of lint.py
expect() {
  local what=$1 expected="$2|$3|$4" output status looked
  shift 4
  : >"$LOOKED_AT"
  output=$(python3 "$tree/tools/ci/lint.py" "$@" 2>&1)
  status=$?
  looked=$(sort -rn "$LOOKED_AT" | cut -d ' ' -f 1 | paste -sd ' ')
  all_output+=$output
  [[ "$status|$(tail -n 1 <<<"$output")|$looked" == "$expected" ]] && return
  printf '%s: expected\n  %s\ngot\n  %s\n%s\n' "$what" "$expected" "$status|$looked" "$output"
  wrong=1
}
all_output=
wrong=0

echo 'Checks: everything' >"$tree/.clang-tidy"
printf '// file\n#include "a/shared.h"\nnamespace { int Helper(); }\n' >"$tree/a/one.cc"
printf '// file\n#include "a/shared.h"\nnamespace { int Other(); }\n' >"$tree/a/two.cc"
printf '// file\nnamespace { int Helper(int); }\n' >"$tree/a/three.cc"
echo '#include "a/deep.h"' >"$tree/a/shared.h"
echo 'int deep;' >"$tree/a/deep.h"

expect "nothing to read" 1 "lint.py: no compile_commands.json; run python3 tools/ci/compile_commands.py first" ""
all ''
expect "joined, but not files with a name in common" 0 "clang-tidy: 3 files, 3 of them looked at now, 0 with findings" "2 1"
expect "clean files are not looked at twice" 0 "clang-tidy: 3 files, 0 of them looked at now, 0 with findings" ""
cp -r "$tree" "$TEST_TMPDIR/elsewhere"
tree=$TEST_TMPDIR/elsewhere
all ''
expect "nor in another checkout" 0 "clang-tidy: 3 files, 0 of them looked at now, 0 with findings" ""

echo 'int deeper;' >>"$tree/a/deep.h"
expect "a changed header" 0 "clang-tidy: 3 files, 2 of them looked at now, 0 with findings" "2"
echo '// FINDING' >>"$tree/a/two.cc"
expect "a finding" 1 "clang-tidy: 3 files, 1 of them looked at now, 1 with findings" "1"
expect "a finding is found again" 1 "clang-tidy: 3 files, 1 of them looked at now, 1 with findings" "1"
[[ $all_output == *a/two.cc:*FINDING* ]] || { echo "the finding is not shown" && wrong=1; }
echo '// harmless' >>"$tree/a/one.cc"
expect "joined, and then one by one" 1 "clang-tidy: 3 files, 2 of them looked at now, 1 with findings" "2 1 1"
expect "only the chosen" 0 "clang-tidy: 1 files, 0 of them looked at now, 0 with findings" "" a/one.cc
expect "an unknown file" 1 "lint.py: not in compile_commands.json: a/four.cc" "" a/four.cc
sed -i '/FINDING/d' "$tree/a/two.cc"
expect "mended" 0 "clang-tidy: 3 files, 0 of them looked at now, 0 with findings" ""
echo '// FINDING' >>"$tree/a/shared.h"
expect "a finding in a header" 1 "clang-tidy: 3 files, 2 of them looked at now, 2 with findings" "2 1 1"
sed -i '/FINDING/d' "$tree/a/shared.h"

echo 'Checks: others' >"$tree/.clang-tidy"
expect "other checks" 0 "clang-tidy: 3 files, 3 of them looked at now, 0 with findings" "2 1"
echo 'clang-tidy==0' >"$tree/tools/ci/clang_tidy.txt"
expect "another clang-tidy" 0 "clang-tidy: 3 files, 3 of them looked at now, 0 with findings" "2 1"
ln -s clang-tidy "$TEST_TMPDIR/another"
CLANG_TIDY=$TEST_TMPDIR/another expect "one of one's own" 0 "clang-tidy: 3 files, 3 of them looked at now, 0 with findings" "2 1"
expect "and the former again" 0 "clang-tidy: 3 files, 0 of them looked at now, 0 with findings" ""
all '"-DOTHER",'
expect "other flags" 0 "clang-tidy: 3 files, 3 of them looked at now, 0 with findings" "2 1"
find "$XDG_CACHE_HOME" -type f -exec touch -d '31 days ago' {} +
expect "a month later" 0 "clang-tidy: 3 files, 3 of them looked at now, 0 with findings" "2 1"
all '"-DBROKEN",'
expect "clang-tidy fails" 1 "clang-tidy: 3 files, 3 of them looked at now, 3 with findings" "2 1 1 1"
unset CLANG_TIDY
export PIP_NO_INDEX=1
expect "no PyPI" 1 "lint.py: tools/ci/clang_tidy.txt cannot be installed from PyPI; CLANG_TIDY=/path/of/clang-tidy takes another" ""

((wrong == 0))
