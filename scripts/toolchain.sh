#!/usr/bin/env bash
# Checks that there is a Rust toolchain new enough for this workspace; says how to get one if not.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
advice="Get one from https://rustup.rs (as the user who runs this script), open a new shell, and run the script again."

if ! command -v cargo >/dev/null; then
    echo "No Rust toolchain found (no 'cargo' on the PATH). Homeport needs Rust $wanted or newer. $advice" >&2
    exit 1
fi
found=$(rustc --version | cut -d ' ' -f 2)
oldest=$(printf '%s\n%s\n' "$wanted" "$found" | sort --version-sort | head -n 1)
if [ "$oldest" != "$wanted" ]; then
    echo "Rust $found is too old: Homeport needs $wanted or newer. 'rustup update stable' brings one. Without rustup: $advice" >&2
    exit 1
fi
echo "toolchain: Rust $found"
