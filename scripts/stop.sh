#!/usr/bin/env bash
# Stops the server that scripts/quickstart.sh started, and waits until its containers and mounts are gone.
#
# Usage: scripts/stop.sh [DATA_DIR]     (default: HOMEPORT_DATA_DIR or ~/.local/share/homeport)
set -euo pipefail

data_dir=${1:-${HOMEPORT_DATA_DIR:-$HOME/.local/share/homeport}}
pid_file=$data_dir/server.pid
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)

pid=$("${as_root[@]}" cat "$pid_file" 2>/dev/null || true)
# The process id may belong to another program by now.
case $("${as_root[@]}" readlink "/proc/$pid/exe" 2>/dev/null || true) in
    */homeport | */homeport\ \(deleted\)) ;;
    *)
        "${as_root[@]}" rm -f "$pid_file"
        exit 0
        ;;
esac
echo "stopping the server (process $pid)"
"${as_root[@]}" kill -TERM "$pid"
for _ in $(seq 150); do
    if [ ! -e "/proc/$pid" ]; then
        "${as_root[@]}" rm -f "$pid_file"
        exit 0
    fi
    sleep 0.1
done
echo "The server still runs 15 s after SIGTERM; see $data_dir/server.log" >&2
exit 1
