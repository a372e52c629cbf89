#!/usr/bin/env bash
# Makes the virtual environments with the client versions of the test matrix: .venvs/client-0.63.99 and so on, below the
# workspace root. What is there stays.
set -euo pipefail

cd "$(dirname "$0")/../.."

# version = what to install beside it. The two older ones can't upload large arguments with aiohttp 3.12 or newer.
versions=(
    '0.63.99=aiohttp<3.12'
    '0.77.0=aiohttp<3.12'
    '1.6.4='
)
# The matrix is meant for Python 3.11; another one tests a little less of what users run.
python=${PYTHON:-}
if [ -z "$python" ]; then
    if command -v python3.11 >/dev/null; then
        python=python3.11
    else
        python=python3
        echo "clients: NO python3.11 ON THIS MACHINE, the client tests will use $(python3 --version)" >&2
        if python3 -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then
            echo "clients: modal 0.63.99 knows Python up to 3.12. Install Python 3.11, for instance with pyenv, and" \
                "run this again with PYTHON=/path/to/python3.11" >&2
            exit 1
        fi
    fi
fi

for entry in "${versions[@]}"; do
    version=${entry%%=*}
    beside=${entry#*=}
    venv=.venvs/client-$version
    found=$("$venv/bin/python" -c 'import modal_version as m; print(m.__version__)' 2>/dev/null || true)
    if [ "$found" = "$version" ]; then
        continue
    fi
    echo "clients: installing modal $version into $venv" >&2
    rm -rf "$venv"
    mkdir -p .venvs
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "modal==$version" ${beside:+"$beside"}
done

# What `Secret.from_dotenv` reads files with, which users install beside the client.
for entry in "${versions[@]}"; do
    python=.venvs/client-${entry%%=*}/bin/python
    "$python" -c 'import dotenv' 2>/dev/null ||
        "$python" -m pip install --quiet --disable-pip-version-check python-dotenv
done
