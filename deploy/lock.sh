#!/bin/sh
# `make lock`: the exact releases that the image is made of, with the hashes of their files: deploy/requirements.lock is what
# runs, deploy/build.lock what compiles. pyproject.toml says which releases may be taken; these are the newest of them.
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
python=${PYTHON:-python3}

"$python" -m venv "$work/uv"
"$work/uv/bin/pip" install --quiet --disable-pip-version-check uv
"$python" -c '
import sys, tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' >"$work/build.in"

# For every system and every Python that Kache runs on, so that one file serves them all.
lock() {
    "$work/uv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --upgrade \
        --no-emit-index-url --custom-compile-command 'make lock' --output-file "$work/$2" "$1"
    mv "$work/$2" "deploy/$2"
}
lock pyproject.toml requirements.lock
lock "$work/build.in" build.lock
grep -hE '^[A-Za-z]' deploy/requirements.lock deploy/build.lock | sed 's/ *\\$//'
