#!/bin/sh
# The hypervisor as a service, in one go: `make demo-service`.
#
#   demo_service.sh DEVBC TRACE     the devbc command, and a recorded guest
#
# The service is a process of its own, in a folder of its own; every command below is another process that talks
# to it. Whatever fails, the service is ended and the folder removed.
set -eu
devbc=$1 trace=$2

folder=$(mktemp -d)
export DEVBC_SOCKET="$folder/devbc.sock"
service=
clean_up() {
    [ -z "$service" ] || kill "$service" 2>/dev/null || true
    wait
    rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

say() {
    printf '\n$ %s\n' "devbc $*"
    "$devbc" "$@"
}

printf '$ devbc serve &\n'
"$devbc" serve --log "$folder/log" &
service=$!
until [ -S "$DEVBC_SOCKET" ]; do
    kill -0 "$service" 2>/dev/null || exit 1 # it has said why
    sleep 0.1
done

say vm create pc --machine pc
say run --guest "$trace" --vm pc --vcpus 2
say list --vm pc
say vm destroy pc

printf '\n$ kill -TERM %%1\n'
kill -TERM "$service"
wait "$service" || { status=$?; cat "$folder/log" >&2; exit $status; }
service=
[ ! -e "$DEVBC_SOCKET" ]
tail -n 1 "$folder/log"
