#!/usr/bin/env bash
# Says in one line what a bare Debian lacks for this project, with the command that mends it; silent when all is there.
set -u
missing=()
python=$(command -v "${PYTHON:-}" python3.11 python3.12 python3.13 python3 2>/dev/null | head -n 1)
if [ -z "$python" ]; then missing+=(python3 python3-venv)
elif ! command -v uv >/dev/null 2>&1 && ! "$python" -c "import ensurepip, venv" 2>/dev/null; then missing+=(python3-venv); fi
has_library() { ldconfig -p 2>/dev/null | grep -q "$1" || ls /usr/lib/*/"$1"* >/dev/null 2>&1; }
# Headless rendering: EGL, through a GPU's driver or Mesa's software renderer.
has_library libEGL.so.1 || missing+=(libegl1)
if [ -z "$(ls /usr/share/glvnd/egl_vendor.d/*.json /etc/glvnd/egl_vendor.d/*.json 2>/dev/null)" ]; then missing+=(libegl-mesa0 libgl1-mesa-dri); fi
has_library libGL.so.1 || missing+=(libgl1)
if [ ${#missing[@]} -gt 0 ]; then
  echo "preflight: this machine lacks: ${missing[*]}. On Debian: apt-get install -y ${missing[*]}" >&2
  exit 1
fi
