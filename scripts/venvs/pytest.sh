#!/usr/bin/env bash
# Makes the virtual environment .venvs/pytest, below the workspace root, that runs the end-to-end tests.
# What is there stays.
set -euo pipefail

cd "$(dirname "$0")/../.."
venv=.venvs/pytest
packages=(pytest==9.0.2 pytest-timeout==2.4.0 blake3==1.0.8)

installed=$("$venv/bin/python" -m pip freeze 2>/dev/null || true)
missing=()
for package in "${packages[@]}"; do
    grep --quiet --fixed-strings --line-regexp "$package" <<<"$installed" || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
echo "pytest: installing ${packages[*]} into $venv" >&2
rm -rf "$venv"
mkdir -p .venvs
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${packages[@]}"
