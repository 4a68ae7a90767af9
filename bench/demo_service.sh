#!/bin/sh
# The hypervisor as a service, in one go: `make demo-service`.
#
#   demo_service.sh DEVBC TRACE     the devbc command, and a recorded guest
#
# The service is a process of its own, in a folder of its own; every command below is another process that talks
# to it. Whatever fails, the service is ended and the folder removed.
set -eu
devbc=$1 trace=$2
here=$(dirname "$0")

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

note() {
    printf '\n# %s\n' "$*"
}
say() {
    printf '$ %s\n' "devbc $*"
    "$devbc" "$@"
}

note 'The hypervisor: it owns VMs, vCPUs and programs, and trusts no client.'
printf '$ devbc serve &\n'
"$devbc" serve --log "$folder/log" &
service=$!
until [ -S "$DEVBC_SOCKET" ]; do
    kill -0 "$service" 2>/dev/null || exit 1 # it has said why
    sleep 0.1
done

note 'Another process uploads five devices; the hypervisor verifies each handler before it may answer.'
say vm create pc --machine pc
note 'What is not proven safe is refused, at its line.'
if say load "$here/../tests/data/rejected/reads_past_scratch.dev" --vm pc --at 0x300 2>&1; then exit 1; fi
note 'A guest on two vCPUs. What no program answers is an exit to this process, which has the models.'
say run --guest "$trace" --vm pc --vcpus 2 --top 16
note 'Why accesses went to userspace, and how long the others took.'
say stats --vm pc --device rtc
note 'What a read would return now, without its effects; then a program in place of another.'
say inquire 0x608 --vm pc
say load "$here/../devices/i8254/i8254.dev" --vm pc --name pit --replace
say vm destroy pc

note 'The end of the service: its last word is in its log.'
printf '$ kill -TERM %%1\n'
kill -TERM "$service"
wait "$service" || { status=$?; cat "$folder/log" >&2; exit $status; }
service=
[ ! -e "$DEVBC_SOCKET" ]
tail -n 1 "$folder/log"
