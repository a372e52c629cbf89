#!/usr/bin/env bash
# Runs the long form of the suites on Volumes, for hours, and ends with a failure if anything failed:
#   suites      pjdfstest, fsx and fio with many more operations
#   crash       power loss at every moment of a history
#   properties  trees, deltas, merges, scans and commits with many more cases of chance
#   fuzz        every decoder, on input that nobody would write; what it finds of interest goes into the corpora
#   clients     the Volume tests with the real clients, again and again, for the time that is left; once at least
# Needs root, and what scripts/test.sh installs.
#
# Usage: scripts/soak.sh [HOURS [PART...]]     (default: 8 hours, all parts)
set -euo pipefail

cd "$(dirname "$0")/.."
if [ "$(id -u)" -ne 0 ]; then
    exec sudo --preserve-env "PATH=$PATH" "$0" "$@"
fi
hours=${1:-8}
shift $(($# > 0))
parts=" ${*:-suites crash properties fuzz clients} "
cache=${HOMEPORT_TEST_CACHE:-}
unset "${!MODAL_@}" "${!HOMEPORT_@}" "${!PROPTEST_@}"
[ -z "$cache" ] || export HOMEPORT_TEST_CACHE=$cache
PATH=$PATH:$HOME/.cargo/bin

seconds=$(awk -v hours="$hours" 'BEGIN { if (hours + 0 <= 0) exit 1; print int(hours * 3600) }') || {
    echo "soak: \`$hours\` is no number of hours" >&2
    exit 2
}
for part in $parts; do
    case $part in
        suites | crash | properties | fuzz | clients) ;;
        *)
            echo "soak: there is no part \`$part\`; the parts are suites, crash, properties, fuzz, clients" >&2
            exit 2
            ;;
    esac
done
logs=$(mktemp --directory --tmpdir homeport-soak-XXXXXX)
ran=() failed=0

# Runs one thing with its output in a file, and shows the end of that if it fails. A filter that matches no test is a
# failure too.
run() {
    local name=$1 began=$SECONDS log="$logs/${#ran[@]}"
    shift
    printf '%s  %s\n' "$(date +%T)" "$name"
    if "$@" >"$log" 2>&1 && grep -Eq '(^test result: ok\. [1-9]|[1-9][0-9]* passed)' "$log"; then
        ran+=("passed  $((SECONDS - began)) s  $name")
    else
        ran+=("FAILED  $((SECONDS - began)) s  $name: $log")
        failed=$((failed + 1))
        tail -n 80 "$log"
    fi
}

# How many times the everyday amount fits: of what takes so many seconds every day, in this share of the time, in percent.
times() {
    local share=$1 everyday=$2 times
    times=$((seconds * share / 100 / everyday))
    echo $((times > 0 ? times : 1))
}

scripts/suites.sh
cargo build --release -p homeport
cargo build --release -p homeport-fs --example on_volume
pytest=(.venvs/pytest/bin/python -m pytest)

if [[ $parts == *" suites "* ]]; then
    soak=$(times 20 120)
    run "POSIX suites, $soak times as long" env "HOMEPORT_SOAK=$soak" \
        "${pytest[@]}" "--timeout=$((900 * soak))" tests/test_posix_suites.py
fi

if [[ $parts == *" crash "* ]]; then
    run "power loss at every moment" env HOMEPORT_CRASHES=100000 \
        cargo test --release -p homeport --test crash
fi

if [[ $parts == *" properties "* ]]; then
    more=$(times 20 100)
    for test in trees edits deltas merging_anything; do
        run "$test, $((more * 10000)) cases" env "PROPTEST_CASES=$((more * 10000))" \
            cargo test --release -p homeport-content --test "$test"
    done
    run "scans, $((more * 20)) cases" env "PROPTEST_CASES=$((more * 20))" \
        cargo test --release -p homeport-fs --lib scans_say
    run "commits, $((more * 20)) cases" env "PROPTEST_CASES=$((more * 20))" \
        cargo test --release -p homeport-fs --test snapshots commits_round_trip
fi

if [[ $parts == *" fuzz "* ]]; then
    # Twelve targets, two at a time.
    each=$((seconds * 20 / 100 / 6))
    run "every decoder, $each s each" env "HOMEPORT_FUZZ_SECONDS=$each" HOMEPORT_FUZZ_KEEP=1 \
        cargo test --release --workspace fuzz_
fi

if [[ $parts == *" clients "* ]]; then
    round=1
    run "Volumes with the real clients, round $round" "${pytest[@]}" tests/test_volumes.py
    while [ $SECONDS -lt "$seconds" ]; do
        round=$((round + 1))
        run "Volumes with the real clients, round $round" "${pytest[@]}" tests/test_volumes.py
    done
fi

printf '\n'
printf '%s\n' "${ran[@]}"
if [ $failed -gt 0 ]; then
    printf '\nFAILED: %s of %s; the output is in %s\n' "$failed" "${#ran[@]}" "$logs"
    exit 1
fi
rm -r "$logs"
