#!/bin/sh
# `make wheel`: a sdist, a wheel built from nothing but that sdist, and the wheel tried in a fresh environment whose PATH
# has no compiler. Leaves both in dist/, beside the bill of materials of what the wheel brings with it (CycloneDX).
# Wheels for other systems: `cibuildwheel` (pyproject.toml says for which).
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
python=${PYTHON:-python3}

echo "Building dist/ ..."
"$python" -m venv "$work/build"
"$work/build/bin/pip" install --quiet --disable-pip-version-check build
# Without a target it makes the wheel of what it has just put into the sdist, not of this folder.
"$work/build/bin/python" -m build --outdir "$work/dist" . >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

echo "Trying the wheel where there is no compiler ..."
"$python" -m venv "$work/run"
PATH="$work/run/bin" "$work/run/bin/pip" install --quiet --disable-pip-version-check "$work"/dist/*.whl
(cd "$work" && PATH="$work/run/bin" "$work/run/bin/python" "$OLDPWD/tests/smoke.py")

echo "Writing its bill of materials ..."
"$work/build/bin/pip" install --quiet --disable-pip-version-check cyclonedx-bom
"$python" -m venv --without-pip "$work/bare"
"$work/build/bin/pip" --python "$work/bare/bin/python" install --quiet --disable-pip-version-check "$work"/dist/*.whl
name=$(basename "$work"/dist/*.tar.gz .tar.gz)
"$work/build/bin/cyclonedx-py" environment --output-reproducible --pyproject pyproject.toml --mc-type application \
    --output-file "$work/dist/$name.cdx.json" "$work/bare/bin/python"
# It reads pyproject.toml, which leaves the version to the package: whose bill it is has to be in it.
"$work/build/bin/python" - "$work/dist/$name.cdx.json" "${name##*-}" <<'END'
import json, sys

path, version = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    bill = json.load(file)
whole = bill["metadata"]["component"]
whole["version"], whole["purl"] = version, f"pkg:pypi/{whole['name']}@{version}"
with open(path, "w", encoding="utf-8") as file:
    json.dump(bill, file, indent=2)
END

echo "Running the tests of a sample project on it ..."
"$work/run/bin/pip" install --quiet --disable-pip-version-check "$(ls "$work"/dist/*.whl)[pytest]" pytest-xdist redis Django
cp -R tests/sample_project "$work/sample"
(cd "$work/sample" && PATH="$work/run/bin" "$work/run/bin/python" -m pytest -q -n 8)

mkdir -p dist
mv "$work"/dist/* dist/
ls dist
