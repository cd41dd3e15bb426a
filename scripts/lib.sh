# Sourced by the other scripts, which have set `me`: how they speak, and how they find Python 3.13 and uv.

say() { printf '%s: %s\n' "$me" "$*"; }
fail() { printf '%s: %s\n' "$me" "$*" >&2; exit 1; }

# A shim of pyenv is on the PATH and may still start nothing, or another version: only what answers counts.
is_313() { [ -n "$1" ] && "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' >/dev/null 2>&1; }

# Sets `python` to a Python 3.13, or to nothing.
find_python() {
    python=
    for candidate in "${PYTHON:-}" python3.13 python3 python "${PYENV_ROOT:-${HOME:-/nowhere}/.pyenv}"/versions/3.13*/bin/python; do
        if is_313 "$candidate"; then
            python=$("$candidate" -c "import sys; print(sys.executable)") # not the shim
            return
        fi
    done
}

# Sets `chromium` to a Chromium or Chrome, or to nothing. tests/browser/browsing.py looks in the same places.
find_chromium() {
    chromium=${CHROMIUM:-}
    [ -z "$chromium" ] || return 0
    for candidate in chromium chromium-browser google-chrome google-chrome-stable; do
        if chromium=$(command -v "$candidate"); then return 0; fi
    done
    chromium=
}

has_uv() { uv --version >/dev/null 2>&1; }

# uv does not read pip's settings. Whoever has told pip which index to use, and which certificate to trust, has told us; uv's own
# variables, where they are set, stand. Takes a Python, perhaps one with pip.
pips_index_for_uv() {
    [ -n "$1" ] && "$1" -m pip --version >/dev/null 2>&1 || return 0
    settings=$("$1" - <<'PYTHON'
import os, shlex, subprocess, sys

listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
found = {}
for line in listed.splitlines():
    name, _, value = line.partition("=")
    section, _, key = name.partition(".")
    if section in ("global", "install") or (section == ":env:" and value):  # the environment has the last word
        found[key] = value.strip("'\"") if section == ":env:" or key not in found else found[key]
for pips, uvs in (("index-url", "UV_DEFAULT_INDEX"), ("cert", "SSL_CERT_FILE")):
    if pips in found and uvs not in os.environ:
        print(f"export {uvs}={shlex.quote(found[pips])}")
PYTHON
    ) || return 0
    eval "$settings"
}

# More than one index, a folder of wheels, or none but that: pip and uv do not choose alike among several, so pip it is.
pip_has_several_sources() {
    [ -n "$1" ] && "$1" -m pip config list 2>/dev/null | grep -Eq "^(:env:|global|install)\.(extra-index-url|find-links|no-index)="
}
