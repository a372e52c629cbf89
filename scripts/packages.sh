#!/usr/bin/env bash
# Installs the system packages that Homeport needs on Debian and Ubuntu: only those that are missing.
#
# Usage: scripts/packages.sh [--with-tests]
set -euo pipefail

needed=(
    # to run: containers, base images, networks, user namespaces
    runc mmdebstrap nftables iproute2 tini uidmap ca-certificates debian-archive-keyring
    # to build the binary
    build-essential pkg-config libssl-dev
    # for virtual environments with clients
    python3 python3-venv
)
for_tests=(docker-registry skopeo busybox-static attr curl erofs-utils xfsprogs fio)

[ "${1:-}" = --with-tests ] && needed+=("${for_tests[@]}")

if ! command -v apt-get >/dev/null; then
    echo "This script knows Debian and Ubuntu only. Install these by your system's own means: ${needed[*]}" >&2
    exit 1
fi

missing=()
for package in "${needed[@]}"; do
    status=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "packages: all ${#needed[@]} are installed"
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "Installing packages needs root: run this as root, or install sudo." >&2
        exit 1
    fi
    as_root=(sudo)
fi
echo "packages: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update --quiet
"${as_root[@]}" apt-get install --yes --quiet --no-install-recommends "${missing[@]}"
