#!/bin/sh
# Joins the pieces in this folder, checks each of them, installs the wheels among them into an environment of their own, and runs
# the check of the GPU. Nothing is fetched. Needs Linux and Python @PYTHON@ with venv (PYTHON=/path/to/python3 names another one).
# What is given to it goes to the check: sh run.sh --stage texts
set -eu
cd "$(dirname "$0")"
here=$(pwd)

for program in sha256sum tar "${PYTHON:=python@PYTHON@}"; do
    if ! command -v "$program" >/dev/null; then
        echo "run.sh: $program is needed and not here" >&2
        exit 2
    fi
done
if [ "$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" != "@PYTHON@" ]; then
    echo "run.sh: the wheels are for Python @PYTHON@, which $PYTHON is not: PYTHON=/path/to/python@PYTHON@ sh run.sh" >&2
    exit 2
fi

# What was unpacked from these very pieces need not be unpacked again.
if ! cmp -s pieces.sha256 unpacked/.pieces; then
    echo "checking @COUNT@ pieces ..." >&2
    if ! sha256sum --quiet --check pieces.sha256 >&2; then
        echo "run.sh: the pieces named above are damaged or missing: copy them again" >&2
        exit 2
    fi
    echo "unpacking ..." >&2
    rm -rf unpacked
    mkdir unpacked
    cat pieces/piece.* | tar -x -f - -C unpacked
    echo "installing ..." >&2
    "$PYTHON" -m venv unpacked/env
    unpacked/env/bin/python -m pip --disable-pip-version-check --quiet install --no-index --find-links unpacked/wheels \
        --requirement unpacked/requirements.txt
    cp pieces.sha256 unpacked/.pieces
fi

cd unpacked/project
exec ../env/bin/python -m tests.gpu.verify ../material --output "$here/verify-gpu" "$@"
