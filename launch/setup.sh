#!/usr/bin/env bash
# Makes the environments from the hash-locked requirement files: `launch/setup.sh base|dev|edge|cuda|tpu|ray|s3|reverb|parity`.
# base, dev; edge (a robot's computer: nothing that trains); cuda, tpu (with JAX for that), ray (simulated fleets on many machines) -> .venv    reverb -> launch/reverb/.venv    s3 (a local server for tests) -> launch/object_store/.venv    parity -> benchmarks/parity_lerobot/.venv (8 GB)
# Does nothing when the lock file hasn't changed since the last time.
# Uses uv where it is on the PATH, else the standard library's venv and pip.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "setup: $1" >&2; exit 1; }

# Prints the first Python on the PATH whose version lies in [$1, $2], both as "3.11".
find_python() {
  local low=$1 high=$2 name
  for name in "${PYTHON:-}" python3.11 python3.12 python3.13 python3.14 python3; do
    [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 || continue
    "$name" -c "import sys; v = sys.version_info[:2]; low, high = (tuple(map(int, s.split('.'))) for s in sys.argv[1:]); \
sys.exit(not low <= v <= high)" "$low" "$high" 2>/dev/null && { command -v "$name"; return; }
  done
  return 1
}

install() {  # install VENV PYTHON LOCK
  local venv=$1 python=$2 lock=$3
  if command -v uv >/dev/null 2>&1; then
    [ -x "$venv/bin/python" ] || uv venv -q -p "$python" "$venv"
    uv pip install -q -p "$venv/bin/python" --require-hashes -r "$lock"
  else
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "$lock"
  fi
}

what=${1:?usage: launch/setup.sh base|dev|edge|cuda|tpu|ray|s3|reverb|parity}
case $what in
  base | dev | edge | cuda | tpu | ray) venv=.venv lock=requirements/$what.txt ;;
  s3) venv=launch/object_store/.venv lock=launch/object_store/moto.txt ;;
  reverb) venv=launch/reverb/.venv lock=launch/reverb/requirements.txt ;;
  parity) venv=benchmarks/parity_lerobot/.venv lock=benchmarks/parity_lerobot/requirements.txt ;;
  *) fail "unknown environment '$what': expected base, dev, edge, cuda, tpu, ray, s3, reverb or parity" ;;
esac

stamp=$venv/.installed-$what
fingerprint=$(cat "$lock" pyproject.toml | sha256sum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$fingerprint" ]; then exit 0; fi
# A dev environment holds everything of base.
if [ "$what" = base ] && [ -f $venv/.installed-dev ]; then exec "$0" dev; fi

# A real robot renders nothing, so it needs no graphics libraries.
if [ "$what" != edge ] && [ "$what" != s3 ]; then launch/preflight.sh; fi
echo "setup: making $venv from $lock (a few minutes the first time)"
if [ "$what" = reverb ]; then
  if [ -n "${SOP_REVERB_PYTHON:-}" ]; then echo "setup: SOP_REVERB_PYTHON is set, using that environment"; exit 0; fi
  python=$(find_python 3.9 3.11) || fail "the Reverb server needs Python 3.9 to 3.11 (dm-reverb has no later wheel); install python3.11, or point SOP_REVERB_PYTHON at an environment that has dm-reverb"
  install $venv "$python" "$lock"
elif [ "$what" = s3 ]; then
  python=$(find_python 3.11 3.99) || fail "Python 3.11 or newer is needed; install python3.11"
  install $venv "$python" "$lock"
elif [ "$what" = parity ]; then
  python=$(find_python 3.12 3.12) || fail "LeRobot's pi0.5 needs Python 3.12; install python3.12, or set PYTHON to it"
  install $venv "$python" "$lock"
else
  python=$(find_python 3.11 3.99) || fail "Python 3.11 or newer is needed; install python3.11"
  install $venv "$python" "$lock"
  if command -v uv >/dev/null 2>&1; then uv pip install -q -p $venv/bin/python --no-deps --no-build-isolation -e .
  else $venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .; fi
fi
echo "$fingerprint" > "$stamp"
