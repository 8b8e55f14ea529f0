#!/bin/sh
# Writes each password once into the folder $1: the one the environment gives, else a random one.
# A password that is there stays: the database was made with it.
set -eu

keep() {
    file="$1"
    if [ -s "$file" ]; then return; fi
    printf '%s' "${2:-$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')}" > "$file.new"
    # Readable by all: each reader runs as its own user, and only they mount this volume.
    chmod 444 "$file.new"
    mv "$file.new" "$file"
}

keep "$1/postgres" "${POSTGRES_PASSWORD:-}"
keep "$1/redis" "${REDIS_PASSWORD:-}"
