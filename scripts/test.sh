#!/usr/bin/env bash
# Runs every check and every test: what a change must pass, and what CI runs. Needs root, because it starts containers.
#
# Usage: scripts/test.sh [arguments for pytest]
set -euo pipefail

cd "$(dirname "$0")/.."
if [ "$(id -u)" -ne 0 ]; then
    exec sudo --preserve-env "PATH=$PATH" "$0" "$@"
fi
unset "${!MODAL_@}" "${!HOMEPORT_@}"
PATH=$PATH:$HOME/.cargo/bin

failed=()
# Runs one part; a failing one is told at the end, so that one run shows everything that is wrong.
part() {
    local name=$1 began=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    if "$@"; then
        echo "== $name: passed in $((SECONDS - began)) s"
    else
        echo "== $name: FAILED after $((SECONDS - began)) s"
        failed+=("$name")
    fi
}

scripts/packages.sh --with-tests
scripts/toolchain.sh
for venv in clients hub pytest; do
    "scripts/venvs/$venv.sh"
done
scripts/models/minilm.sh >/dev/null
scripts/suites.sh

part "format" cargo fmt --all --check
part "lints" cargo clippy --release --workspace --all-targets -- -D warnings
part "build" cargo build --release -p homeport
part "Volume for suites" cargo build --release -p homeport-fs --example on_volume
part "Rust tests" cargo test --release --workspace --no-fail-fast
if [ ${#failed[@]} -gt 0 ]; then
    printf '\nFAILED so far: %s\n' "${failed[*]}"
fi

# Last, so that its summary ends the output.
printf '\n== end to end\n'
.venvs/pytest/bin/python -m pytest tests "$@" || exit 1
[ ${#failed[@]} -eq 0 ]
