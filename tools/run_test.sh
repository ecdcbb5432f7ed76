#!/bin/bash
# tools/run, with stand-ins for bazel, what installs and what is built.
#
#     run_test.sh RUN
set -u

run=$(realpath "$1")
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/run.XXXXXX") || exit 1
trap 'rm -rf "$folder"' EXIT
failures=0

mkdir -p "$folder/root/tools/bazel" "$folder/bin" "$folder/out/tools" "$folder/elsewhere"
cp "$run" "$folder/root/tools/run"
cat >"$folder/root/tools/bazel/install.sh" <<'END'
#!/bin/bash
[[ ${FAKE_INSTALL:-0} == 0 ]] || echo 'Missing: cake' >&2
exit "${FAKE_INSTALL:-0}"
END
cat >"$folder/bin/bazel" <<END
#!/bin/bash
echo "bazel \$1 in \$PWD" >&2
case \$1 in
  build) exit "\${FAKE_BUILD:-0}" ;;
  info) [[ \${FAKE_INFO:-0} == 0 ]] && echo "$folder/out" || exit 2 ;;
esac
END
cat >"$folder/out/tools/shardproof" <<'END'
#!/bin/bash
echo "in ${PWD##*/}:" "$@"
exit 3
END
chmod +x "$folder/root/tools/bazel/install.sh" "$folder/bin/bazel" "$folder/out/tools/shardproof"

# expect NAME STATUS PATTERN [VARIABLE=VALUE] ARGUMENTS...: of `env`, then of tools/run.
expect() {
  local name=$1 status=$2 pattern=$3 got settings=()
  shift 3
  while [[ ${1-} == FAKE_*=* ]]; do settings+=("$1"); shift; done
  (cd "$folder/elsewhere" && env PATH="$folder/bin:$PATH" "${settings[@]}" bash "$folder/root/tools/run" "$@") \
    >"$folder/text" 2>&1
  got=$?
  if ((got != status)) || ! grep -qE -- "$pattern" "$folder/text"; then
    echo "FAILED: $name: exit $got, not $status, or nothing matches \"$pattern\""
    sed 's/^/    /' "$folder/text"
    failures=$((failures + 1))
  else
    echo "ok: $name"
  fi
}

expect 'the main job, where the person is' 3 '^in elsewhere: run$'
expect 'a command' 3 '^in elsewhere: list --json a b$' list --json 'a b'
expect 'it is built in the repository' 3 "^bazel build in .*/root$"
expect 'what cannot be installed' 6 '^Missing: cake$' FAKE_INSTALL=6 list
expect 'what cannot be built' 6 '^shardproof could not be built; see above\.$' FAKE_BUILD=1 list
expect 'what cannot be found' 6 '^shardproof could not be built; see above\.$' FAKE_INFO=1 list
grep -q '^in ' "$folder/text" && { echo 'FAILED: it ran'; failures=$((failures + 1)); }

exit $((failures > 0))
