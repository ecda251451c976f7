#!/bin/sh
# venv.sh PYTHON DIRECTORY MEGABYTES: a virtual environment with pip in DIRECTORY, made or mended, where there is room for
# what is to be installed; otherwise one line that says what is in the way.
set -eu
python=$1 directory=$2 megabytes=$3
suits='import sys; sys.exit(sys.version_info < (3, 11))'

fail() {
    echo "detector: error: $1" >&2
    exit 1
}

"$python" -c "$suits" 2>/dev/null \
    || fail "\`$python\` is not there, or older than Python 3.11. Name one: make install PYTHON=python3.11"
if [ -e "$directory" ]; then
    [ -f "$directory/pyvenv.cfg" ] || fail "$directory is no virtual environment. Move it away."
    "$directory/bin/python" -c "$suits" 2>/dev/null \
        || fail "the Python of $directory is gone, or older than 3.11. Remove that directory: it is made again."
    # Left by an installation that was interrupted, perhaps: then pip is added.
    "$directory/bin/python" -m pip --version >/dev/null 2>&1 && exit 0
else
    free=$(df -Pm "$(dirname "$directory")" 2>/dev/null | awk 'NR == 2 { print $4 }')
    [ "${free:-0}" -ge "$megabytes" ] \
        || fail "$directory takes $megabytes MB, and ${free:-0} MB are free. Make room, or choose another disk."
fi
"$python" -c 'import ensurepip, venv' 2>/dev/null \
    || fail "\`$python\` lacks the modules venv and ensurepip. On Debian and Ubuntu: apt-get install python3-venv"
said=$("$python" -m venv "$directory" 2>&1) || fail "$directory cannot be made: $(echo "$said" | tail -n 1)"
