#!/usr/bin/env bash
# Installs the POSIX suites that the tests run on mounted Volumes into .tools, once: pjdfstest and fsx.
set -euo pipefail

cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin

install() {
    local name=$1 version=$2
    if [ "$(cat ".tools/$name.version" 2>/dev/null)" = "$version" ] && [ -x ".tools/bin/$name" ]; then
        echo "suites: $name $version is installed"
        return
    fi
    echo "suites: installing $name $version"
    cargo install --quiet --locked --root .tools --target-dir target/suites --version "$version" "$name"
    echo "$version" >".tools/$name.version"
}

mkdir -p .tools
install pjdfstest 0.2.2
install fsx 0.3.2
