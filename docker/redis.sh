#!/bin/sh
# Starts Redis with the password that file $1 holds. Further arguments go to redis-server.
set -eu
password=$(sed 's/[\\"]/\\&/g' "$1")
shift
# Redis reads the password from standard input; an argument would show it in the process list.
exec redis-server - "$@" <<END
requirepass "$password"
appendonly yes
maxmemory-policy noeviction
END
