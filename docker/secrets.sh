#!/bin/sh
# Writes the passwords of PostgreSQL and Redis into folder $1, each once: the password that the
# environment gives, or else a random one. A password that exists already stays, because the
# database was made with it. The secret of webhooks is the one that the environment gives; it may
# change, and without it there are no webhooks.
set -eu

write() {
    printf '%s' "$2" > "$1.new"
    # All users may read the file, because each reader runs as a user of its own. Only these readers
    # mount this volume.
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
