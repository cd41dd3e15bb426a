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

has_uv() { uv --version >/dev/null 2>&1; }

# uv does not read pip's settings. Whoever has told pip where packages come from has told us: a mirror, a folder, a certificate.
# Takes a Python that has pip; uv's own variables, where they are set, stand.
pips_settings_for_uv() {
    [ -n "$1" ] && "$1" -m pip --version >/dev/null 2>&1 || return 0
    settings=$("$1" - <<'PYTHON'
import os, shlex, subprocess, sys

listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
found = {}
for line in listed.splitlines():  # the environment's lines come first and have the last word
    name, _, value = line.partition("=")
    if name.split(".")[0] in (":env:", "global", "install"):
        found.setdefault(name.rpartition(".")[2], value.strip("'\""))
for pips, uvs, separator in (
    ("index-url", "UV_DEFAULT_INDEX", None), ("extra-index-url", "UV_INDEX", " "), ("find-links", "UV_FIND_LINKS", ","),
    ("cert", "SSL_CERT_FILE", None), ("no-index", "UV_NO_INDEX", None),
):
    if pips in found and uvs not in os.environ:
        value = found[pips] if separator is None else separator.join(found[pips].split())
        print(f"export {uvs}={shlex.quote(value)}")
        if uvs == "UV_INDEX":  # to pip all indexes are one
            print('export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"')
PYTHON
    ) || return 0
    eval "$settings"
}
