#!/usr/bin/env bash
# From a fresh Debian or Ubuntu machine to a model that answers: packages, build, server, client, model, example.
# A second run reuses everything and takes seconds.
#
# HOMEPORT_DATA_DIR  where the server keeps everything     (default: ~/.local/share/homeport)
# HOMEPORT_LISTEN    the address that it serves             (default: 127.0.0.1:8750)
# PYTHON             the interpreter for the client         (default: python3, 3.9 or newer)
set -euo pipefail

cd "$(dirname "$0")/.."
data_dir=${HOMEPORT_DATA_DIR:-$HOME/.local/share/homeport}
listen=${HOMEPORT_LISTEN:-127.0.0.1:8750}
python=${PYTHON:-python3}
model=sentence-transformers/all-MiniLM-L6-v2
venv=.venvs/quickstart
homeport=$PWD/target/release/homeport
log=$data_dir/server.log
pid_file=$data_dir/server.pid
# Settings of another server or client must not leak into this one.
unset "${!MODAL_@}" "${!HOMEPORT_@}"
# sudo hides the toolchain in the home directory of the user who called it.
for home in "$HOME" "$(getent passwd "${SUDO_USER:-$(id -un)}" | cut -d : -f 6)"; do
    PATH=$PATH:$home/.cargo/bin
done

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)

stages=()
stage_name=
# Ends the stage before, if there is one, and begins the next.
stage() {
    local now
    now=$(date +%s.%N)
    if [ -n "$stage_name" ]; then
        stages+=("$(awk -v n="$stage_name" -v a="$stage_began" -v b="$now" 'BEGIN { printf "%-28s %7.1f s", n, b - a }')")
    fi
    stage_name=${1:-}
    stage_began=$now
    [ -z "$stage_name" ] || printf '\n== %s\n' "$stage_name"
}

server_runs() {
    local pid
    pid=$("${as_root[@]}" cat "$pid_file" 2>/dev/null) || return 1
    # A rebuilt binary makes the running one "(deleted)": then a new start is due.
    [ "$("${as_root[@]}" readlink "/proc/$pid/exe" 2>/dev/null)" = "$homeport" ]
}

start_server() {
    if server_runs; then
        echo "already running at $listen"
        return
    fi
    scripts/stop.sh "$data_dir"
    "${as_root[@]}" mkdir -p "$data_dir"
    "${as_root[@]}" rm -f "$log"
    # The first shell writes its own process id and becomes the server, out of reach of this terminal's Ctrl-C.
    # shellcheck disable=SC2016
    "${as_root[@]}" setsid sh -c 'echo $$ >"$1"; shift; log=$1; shift; exec "$@" >"$log" 2>&1 </dev/null' \
        sh "$pid_file" "$log" "$homeport" up --data-dir "$data_dir" --listen "$listen" --gpu-fallback cpu &
    for _ in $(seq 600); do
        if "${as_root[@]}" grep -m 1 '^ready' "$log" 2>/dev/null; then
            return
        fi
        if [ ! -e "/proc/$!" ]; then
            break
        fi
        sleep 0.1
    done
    echo "The server did not get ready. Its log, $log, ends with:" >&2
    "${as_root[@]}" tail -n 20 "$log" >&2
    exit 1
}

# Of the tested clients, 0.63.99 is the one for which @modal.build, the guide's first pattern, is nothing to warn about.
# 0.77.0 has it too, but calls it deprecated at every start; newer ones lack it. With aiohttp 3.12 or newer these two
# can't upload large arguments, and with click 8.2 or newer they can't print their help.
make_client() {
    local version=0.63.99
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then
        version=0.77.0 # the older one doesn't know this Python
    fi
    if [ "$("$venv/bin/python" -c 'import modal_version as m; print(m.__version__)' 2>/dev/null)" != "$version" ]; then
        rm -rf "$venv"
        "$python" -m venv "$venv"
        "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
            "modal==$version" 'aiohttp<3.12' 'click<8.2'
    fi
    echo "$venv has modal $version"
}

import_model() {
    if "${as_root[@]}" "$homeport" models list --data-dir "$data_dir" | grep -q "$model"; then
        echo "$model is in the hub"
        return
    fi
    local directory
    directory=$(PYTHON=$PWD/$venv/bin/python scripts/models/minilm.sh)
    "${as_root[@]}" "$homeport" models import "$directory" --as "$model" --data-dir "$data_dir"
}

run_example() {
    local variables
    variables=$("${as_root[@]}" "$homeport" env --data-dir "$data_dir")
    (
        eval "$variables"
        "$venv/bin/python" -m modal run examples/weights_in_image.py
    )
}

# The server says of each step of an image how long it took.
image_steps() {
    local seconds steps=("Debian with Python" "pip_install" "@build: the model") number=0
    while read -r seconds; do
        stages+=("$(printf '  %-26s %7.1f s' "${steps[number]:-another step}" "$seconds")")
        number=$((number + 1))
    done < <(sed -n 's/^Built image .* in \([0-9.]*\) s.*/\1/p' "$1")
}

stage "System packages"
scripts/packages.sh
stage "Rust toolchain and build"
scripts/toolchain.sh
cargo build --release -p homeport
stage "Doctor"
"${as_root[@]}" "$homeport" doctor --data-dir "$data_dir"
stage "Server"
start_server
stage "Client"
make_client
stage "Model into the hub"
import_model
stage "Example"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
run_example | tee "$output"
stage "Example again"
image_steps "$output"
run_example
stage

printf '\nWhere the time went:\n'
printf '  %s\n' "${stages[@]}"
sudo_word=${as_root[*]:+${as_root[*]} }
cat <<END

Use it:   eval "\$(${sudo_word}$homeport env --data-dir $data_dir)"; $PWD/$venv/bin/modal run examples/weights_in_image.py
Its log:  $log
Stop it:  $PWD/scripts/stop.sh $data_dir
END
