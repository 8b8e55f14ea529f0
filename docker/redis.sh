#!/bin/sh
# Starts Redis with the password in the file $1; further arguments go to redis-server.
set -eu
password=$(sed 's/[\\"]/\\&/g' "$1")
shift
# By standard input: an argument would show the password in the process list.
exec redis-server - "$@" <<END
requirepass "$password"
appendonly yes
maxmemory-policy noeviction
END
