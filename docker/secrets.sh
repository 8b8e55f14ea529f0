#!/bin/sh
# Writes each password once into the folder $1: the one the environment gives, else a random one.
# A password that is there stays: the database was made with it. The secret of webhooks may change,
# and there is only the one that the environment gives.
set -eu

write() {
    printf '%s' "$2" > "$1.new"
    # Readable by all: each reader runs as its own user, and only they mount this volume.
    chmod 444 "$1.new"
    mv "$1.new" "$1"
}

keep() {
    if [ -s "$1" ]; then return; fi
    write "$1" "${2:-$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')}"
}

keep "$1/postgres" "${POSTGRES_PASSWORD:-}"
keep "$1/redis" "${REDIS_PASSWORD:-}"
rm -f "$1/webhook"
if [ -n "${WEBHOOK_SECRET:-}" ]; then write "$1/webhook" "$WEBHOOK_SECRET"; fi
