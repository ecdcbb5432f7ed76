#!/bin/bash
# Installs what is missing on a Debian machine, as root or through sudo; elsewhere says exactly what is missing.
#
#     install.sh [--dev]       --dev: also what only .ci/run needs
#
# Exit status 6: something needed is missing and could not be installed. When nothing is missing this takes milliseconds.
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tried=${here%/tools/bazel}/.cache/packages-not-to-be-had
kinds=" needed optional "
[[ ${1-} == --dev ]] && kinds+="dev "

say() { echo "$@" >&2; }

is_there() {
  local probe=$1 folder
  [[ $probe == /* ]] && { [[ -e $probe ]]; return; }
  if [[ $probe == *.so ]]; then
    for folder in /usr/lib /usr/local/lib /usr/lib/*-linux-gnu ${LIBRARY_PATH:+${LIBRARY_PATH//:/ }}; do
      [[ -e $folder/$probe ]] && return
    done
    return 1
  fi
  [[ $probe != *.h* ]] && { command -v "$probe" >/dev/null; return; }
  for folder in /usr/include /usr/local/include /usr/include/*-linux-gnu ${CPATH:+${CPATH//:/ }}; do
    [[ -e $folder/$probe ]] && return
  done
  return 1
}

# Sets `missing` and `missing_optional`.
look() {
  missing=() missing_optional=()
  local package probe kind
  while read -r package probe kind; do
    [[ $package == \#* || $kinds != *" $kind "* ]] && continue
    is_there "$probe" && continue
    if [[ $kind == optional ]]; then missing_optional+=("$package"); else missing+=("$package"); fi
  done <"$here/packages.txt"
}

# Sets `as_root`, or fails after having said why nothing can be installed here.
may_install() {
  as_root=()
  if ! command -v apt-get >/dev/null; then
    say "This is not a Debian system, so nothing was installed."
    return 1
  fi
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null || { [[ ! -t 0 ]] && ! sudo -n true 2>/dev/null; }; then
      say "Not root, and sudo is not to be had here."
      return 1
    fi
    as_root=(sudo)
  fi
}

install() {
  say "Installing: $*"
  "${as_root[@]}" apt-get update -q >&2 || say "The package lists could not be brought up to date; trying with the old ones."
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2
}

look
wanted="${missing[*]} ${missing_optional[*]}"
if [[ $wanted != " " && ! (${#missing[@]} == 0 && $(cat "$tried" 2>/dev/null) == "$wanted") ]]; then
  if may_install; then
    install "${missing[@]}" "${missing_optional[@]}"
    look
    # One that is not to be had must not keep back the rest.
    ((${#missing[@]} && ${#missing_optional[@]})) && install "${missing[@]}" && look
  fi
fi
if ((${#missing[@]})); then
  say "Missing: ${missing[*]}"
  say "Install them, or what your system has in their place. On Debian 12:"
  say "    sudo apt-get install --no-install-recommends ${missing[*]} ${missing_optional[*]}"
  exit 6
fi
if ((${#missing_optional[@]})); then
  say "Left out: what needs ${missing_optional[*]} (Debian's names). To try to install it again, remove $tried"
  mkdir -p "${tried%/*}" && echo " ${missing_optional[*]}" >"$tried"
fi
exit 0
