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
# 0.77.0 is the newest client that still has @modal.build, which the guide's first pattern uses. It can't upload
# large arguments with aiohttp 3.12 or newer.
client=(modal==0.77.0 'aiohttp<3.12')
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

make_client() {
    if ! "$venv/bin/python" -c 'import modal, sys; sys.exit(modal.__version__ != "0.77.0")' 2>/dev/null; then
        rm -rf "$venv"
        "$python" -m venv "$venv"
        "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off "${client[@]}"
    fi
    echo "$venv has $("$venv/bin/python" -m modal --version)"
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
        # Warnings of the client about its own future have no place in a first look.
        PYTHONWARNINGS=ignore "$venv/bin/python" -m modal run examples/weights_in_image.py
    )
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
stage "Example, with its image"
run_example
stage "Example again"
run_example
stage

printf '\nWhere the time went:\n'
printf '  %s\n' "${stages[@]}"
sudo_word=${as_root[*]:+${as_root[*]} }
cat <<END

Use it:   eval "\$(${sudo_word}$homeport env --data-dir $data_dir)"; $PWD/$venv/bin/modal run examples/weights_in_image.py
Its log:  $log
Stop it:  scripts/stop.sh
END
