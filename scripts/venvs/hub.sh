#!/usr/bin/env bash
# Makes the virtual environments with the versions of huggingface_hub that the hub is tested with:
# .venvs/hf-0.23, .venvs/hf-0, .venvs/hf-1 and .venvs/hf-2 below the workspace root. What is there
# in the right version stays.
set -euo pipefail

cd "$(dirname "$0")/../.."

# name of the environment = pinned version; this is the one place that names versions.
versions=(
    hf-0.23=0.23.5
    hf-0=0.36.2
    hf-1=1.33.0
    hf-2=2.4.0
)
python=${PYTHON:-python3}

for entry in "${versions[@]}"; do
    venv=.venvs/${entry%%=*}
    version=${entry#*=}
    found=$("$venv/bin/python" -c 'import huggingface_hub as h; print(h.__version__)' 2>/dev/null || true)
    if [ "$found" = "$version" ]; then
        continue
    fi
    echo "hub: installing huggingface_hub $version into $venv" >&2
    rm -rf "$venv"
    mkdir -p .venvs
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "huggingface_hub==$version"
done
