#!/usr/bin/env bash
# Makes <repository>/.venv and installs dist_trainer into it, editable and with the development tools.
# Safe to run again at any time: does nothing when nothing has changed, and takes a broken or half-made
# environment down and makes it again.
#
#   launch/setup.sh
#
# Environment variables:
#   PYTHON                    the Python to use (3.11 or 3.12); default: the one .venv already has, else
#                             the first that fits of python3, python3.12, python3.11
#   CXX                       the C++ compiler (default g++)
#   DIST_TRAINER_CONSTRAINTS  a pip constraint file; empty for none. Default: what .venv was made with, else
#                             launch/constraints-cpu.txt where no NVIDIA GPU works, else none
#   PIP_*                     read by pip, such as PIP_EXTRA_INDEX_URL for PyTorch's CPU wheels
set -euo pipefail

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)
venv=$root/.venv
log=$root/build/setup.log
made=$venv/.dist_trainer-made               # written when the empty environment is complete: where it lies
installing=$venv/.dist_trainer-installing   # there while pip may be changing packages
chosen=$venv/.dist_trainer-constraints      # the constraint file in use; empty for none
stamp=$venv/.dist_trainer-stamp             # hash of all that the install depends on; there only when it is whole

# Packages of an outer environment (module systems set PYTHONPATH) would look installed to pip.
unset PYTHONPATH PYTHONHOME
export PIP_USER=0

problems=0

die() {
  printf 'setup: %s\n' "$1" >&2
  exit 1
}

problem() {
  printf 'setup: missing: %s\n' "$1" >&2
  problems=$((problems + 1))
}

# stage NAME COMMAND...: one line per stage, with how long it took; the command's output goes to the log.
stage() {
  local name=$1 began=$SECONDS status=0
  shift
  printf 'setup: %s ... ' "$name"
  printf '\n=== %s\n' "$name" >>"$log"
  "$@" >>"$log" 2>&1 || status=$?
  if ((status == 0)); then
    printf '%d s\n' "$((SECONDS - began))"
    return 0
  fi
  printf 'FAILED after %d s\n' "$((SECONDS - began))"
  printf 'setup: the end of %s:\n' "$log" >&2
  tail -n 40 -- "$log" | sed 's/^/    /' >&2
  return "$status"
}

# Two runs at once would install over each other. The lock lies outside .venv, which may be made anew. It is
# opened for writing because network file systems refuse an exclusive lock on a file opened for reading.
# Children inherit it, so that a pip that outlives a killed setup.sh still keeps the next run waiting.
take_lock() {
  mkdir -p -- "$root/build"
  exec 9>>"$root/build/setup.lock"
  if ! flock --nonblock 9; then
    echo "setup: waiting for another setup.sh in this folder"
    flock 9 || die "cannot lock $root/build/setup.lock"
  fi
}

# Prints the real interpreter behind command $1 and where it is installed, or fails if it is none of ours. Not
# the command itself: that may be a link in the very .venv that is about to be removed.
base_python() {
  "$1" -c '
import sys
if sys.implementation.name != "cpython" or sys.version_info[:2] not in ((3, 11), (3, 12)):
    sys.exit(1)
print(getattr(sys, "_base_executable", sys.executable))
print("%d.%d in %s" % (*sys.version_info[:2], sys.base_prefix))' 2>/dev/null
}

# Sets python and python_id, or leaves them empty.
find_python() {
  local candidate answer
  python='' python_id=''
  local candidates=(python3 python3.12 python3.11)
  if [[ -n ${PYTHON:-} ]]; then
    candidates=("$PYTHON") # an explicit choice is not replaced by another
  fi
  for candidate in "${candidates[@]}"; do
    if answer=$(base_python "$candidate"); then
      python=${answer%%$'\n'*}
      python_id=${answer#*$'\n'}
      return 0
    fi
  done
}

# Prints why .venv cannot be used as it is; nothing if it can.
venv_fault() {
  local answer
  if [[ ! -e $venv ]]; then
    echo "there is none yet"
  elif [[ ! -f $made ]]; then
    echo "it was not made to its end by this script"
  elif [[ $(<"$made") != "$root" ]]; then
    echo "it was made in another folder, $(<"$made")" # its scripts name that folder
  elif ! answer=$(base_python "$venv/bin/python") || ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    echo "its Python no longer works"
  elif [[ -n ${PYTHON:-} && ${answer#*$'\n'} != "$python_id" ]]; then
    echo "it has Python ${answer#*$'\n'}, not $python_id"
  elif [[ -e $installing ]] && { [[ ! -f $log ]] || grep -q '^Installing collected packages' "$log"; }; then
    # pip takes a package for installed once its metadata is there, so what it had begun is not to be trusted.
    # A failed download or compilation comes before that line, and then nothing was touched.
    echo "an installation was cut off"
  fi
}

gpu_works() {
  local gpus
  gpus=$(nvidia-smi --list-gpus 2>/dev/null) && [[ $gpus == *GPU* ]]
}

# Sets constraints to an absolute path, or to nothing. What was used last is kept, so that nodes with and without a
# GPU that share this folder do not reinstall in turns.
choose_constraints() {
  if [[ -n ${DIST_TRAINER_CONSTRAINTS+set} ]]; then
    constraints=$DIST_TRAINER_CONSTRAINTS
    if [[ -n $constraints ]]; then
      [[ -f $constraints ]] || die "DIST_TRAINER_CONSTRAINTS: there is no file $constraints"
      constraints=$(readlink -f -- "$constraints")
    fi
  elif [[ -z $fault && -f $chosen ]] && { constraints=$(<"$chosen"); [[ -z $constraints || -f $constraints ]]; }; then
    return 0
  elif gpu_works; then
    constraints=''
  else
    constraints=$root/launch/constraints-cpu.txt
  fi
}

# A hash of everything that should cause an installation when it changes. Python sources are not among them: an
# editable install reads them in place.
state_hash() {
  (
    cd -- "$root"
    printf '%s\n' "$constraints"
    if [[ -n $constraints ]]; then
      sha256sum -- "$constraints"
    fi
    sha256sum -- pyproject.toml launch/constraints-*.txt
    find cpp_envs -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum --
  ) | sha256sum | cut -d ' ' -f 1
}

module_imports() {
  # From the root folder of the file system, so that only what is installed can be found.
  (cd / && "$venv/bin/python" -c 'import dist_trainer._cpp_envs')
}

compiler_speaks_cpp20() {
  # shellcheck disable=SC2086  # CXX may hold a launcher or options, as CMake allows
  $CXX -std=c++20 -x c++ -fsyntax-only - 2>/dev/null <<'CPP'
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 11
#error "too old"
#endif
#include <concepts>
#include <latch>
#include <span>
template <std::integral T> T twice(std::span<T> x) { return x[0] + x[0]; }
CPP
}

# Every missing thing gets its message before the script gives up, so that one apt-get can put all right.
check_machine() {
  local version needed_gb free_kb cxx_command place

  if [[ -z $python ]]; then
    if [[ -n ${PYTHON:-} ]]; then
      problem "PYTHON=$PYTHON is not a working CPython 3.11 or 3.12"
    else
      problem "Python 3.11 or 3.12. Install it: apt-get install python3 python3-venv python3-dev (or set PYTHON)"
    fi
  else
    version=${python_id%% *}
    if [[ -n $fault ]] && ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
      problem "the venv module of $python. Install it: apt-get install python$version-venv"
    fi
    if ! "$python" -c '
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'; then
      problem "Python.h for $python. Install it: apt-get install python$version-dev"
    fi
  fi

  cxx_command=${CXX%% *}
  if ! command -v -- "$cxx_command" >/dev/null; then
    problem "the C++ compiler $cxx_command. Install it: apt-get install g++"
  elif ! compiler_speaks_cpp20; then
    problem "C++20: $CXX is too old or incomplete. Install GCC 11 or later: apt-get install g++-11, then CXX=g++-11"
  fi

  if ! command -v git >/dev/null; then
    problem "git. Install it: apt-get install git"
  fi

  # A rebuild of the module alone takes next to nothing; all the packages are another matter.
  if [[ -n $fault ]]; then
    needed_gb=3
    if [[ -z $constraints ]]; then
      needed_gb=10 # torch with the CUDA libraries
    fi
    place=$root
    if [[ -d $venv ]]; then
      place=$venv # perhaps a link to another disk
    fi
    free_kb=$(df --output=avail -k -- "$place" | tail -n 1)
    if ((free_kb < needed_gb * 1024 * 1024)); then
      problem "disk space: $place has $((free_kb / 1024)) MiB free, the environment needs about $needed_gb GiB"
    fi
  fi

  if ((problems > 0)); then
    die "nothing was changed; run this again when the above is there"
  fi
}

make_venv() {
  rm -f -- "$made" "$stamp" # first, so that a cut-off clearing leaves nothing that looks whole
  # --clear empties the folder rather than replacing it: .venv may be a link to a larger disk.
  "$python" -m venv --clear "$venv" || return
  # What CMake remembers of the Python before would be wrong for this one.
  find "$root/build" -path "$root/build/cp3*/CMakeCache.txt" -delete || return
  printf '%s\n' "$root" >"$made"
}

install_package() {
  local options=()
  if [[ -n $constraints ]]; then
    options+=(--constraint "$constraints")
  fi
  cd -- "$root"
  "$venv/bin/python" -m pip install --no-input --disable-pip-version-check --progress-bar off \
    ${options[@]+"${options[@]}"} --editable ".[dev]"
}

main() {
  local fault constraints state python python_id
  take_lock
  find_python
  fault=$(venv_fault)
  choose_constraints
  state=$(state_hash) # before the build: an edit during it must cause another

  if [[ -z $fault && -f $stamp && $(<"$stamp") == "$state" ]] && module_imports 2>/dev/null; then
    echo "setup: .venv is up to date ($SECONDS s)"
    return 0
  fi

  export CXX=${CXX:-g++} # the compiler that is checked is the one that CMake takes
  if [[ -z $fault ]]; then
    # No need of the system's present default: .venv goes on with the Python it has.
    { read -r python && read -r python_id; } < <(base_python "$venv/bin/python")
  fi
  check_machine

  : >"$log"
  if [[ -n $fault ]]; then
    if [[ -e $venv ]]; then
      echo "setup: making .venv anew: $fault"
    fi
    stage "virtual environment with Python $python_id" make_venv
  fi
  rm -f -- "$stamp"
  : >"$installing"
  printf '%s\n' "$constraints" >"$chosen"
  local shown=${constraints#"$root"/}
  stage "packages and C++ module, constraints: ${shown:-none}" install_package
  rm -f -- "$installing"
  stage "import check" module_imports
  printf '%s\n' "$state" >"$stamp.new"
  mv -f -- "$stamp.new" "$stamp"
  echo "setup: ready in $SECONDS s; source .venv/bin/activate to use it"
}

main "$@"
