# Shared by the scripts of this folder and by tests/demo and tests/regress; sourced, never run.

say() { printf '%s\n' "$*"; }
title() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
# A relative CARGO_TARGET_DIR means "from the checkout" here, whatever folder a script runs in.
case $target in /*) ;; *) target=$root/$target ;; esac

# The folder of Postgres' programs: on Debian only the client's are in the PATH.
pg_bin() {
  local dir
  dir=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -1)
  if [ -x "$dir/initdb" ]; then say "$dir"; return; fi
  dir=$(command -v initdb) && dirname "$(readlink -f "$dir")" && return
  pg_config --bindir 2>/dev/null || true
}

has_postgres() { [ -x "$(pg_bin)/initdb" ] && [ -x "$(pg_bin)/pgbench" ]; }

# Runs a command as a user that Postgres accepts: it refuses to be started by root.
unprivileged() {
  if [ "$(id -u)" != 0 ]; then "$@"; return; fi
  local user=postgres
  id postgres >/dev/null 2>&1 || user=nobody
  setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups -- "$@"
}

# True when nothing listens on the port. Races are possible, and harmless here: the server that comes second says so.
port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    port_is_free "$port" && say "$port" && return
  done
}

# wait_for SECONDS COMMAND…: until the command succeeds
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.1
  done
}

# start_postgres DIR PORT [SETTING=VALUE…]: a throwaway cluster with superuser `postgres` and no password, on loopback only
start_postgres() {
  local dir=$1
  own_folder "$dir"
  ( # the unprivileged user may not be allowed to stand in the current folder
    cd /
    unprivileged "$(pg_bin)/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; exit 1; }
  )
  run_postgres "$@"
}

# start_replica DIR PORT PRIMARY_PORT [SETTING=VALUE…]: a copy of a running cluster that follows it
start_replica() {
  local dir=$1 port=$2 primary=$3
  shift 3
  own_folder "$dir"
  (
    cd /
    unprivileged "$(pg_bin)/pg_basebackup" -D "$dir/data" -h 127.0.0.1 -p "$primary" -U postgres -R -c fast --no-sync >"$dir/basebackup.log" 2>&1 ||
      { cat "$dir/basebackup.log" >&2; exit 1; }
  )
  run_postgres "$dir" "$port" "$@"
}

# run_postgres DIR PORT [SETTING=VALUE…]: starts a cluster that is there
run_postgres() {
  local dir=$1 port=$2 setting
  local -a settings=()
  shift 2
  for setting in "$@"; do settings+=(-c "$setting"); done
  (
    cd /
    unprivileged "$(pg_bin)/pg_ctl" -D "$dir/data" -w -t 60 -l "$dir/postgres.log" -o "-p $port -k '' -c listen_addresses=127.0.0.1 -c fsync=off ${settings[*]:-}" start \
      >"$dir/pg_ctl.log" 2>&1 || { cat "$dir/pg_ctl.log" "$dir/postgres.log" >&2; exit 1; }
  )
}

# own_folder DIR: makes a folder that a cluster can be made in
own_folder() {
  mkdir -p "$1"
  [ "$(id -u)" != 0 ] || chown "$(unprivileged id -u)" "$1"
}

# stop_postgres DIR [MODE]
stop_postgres() {
  [ ! -e "$1/data/postmaster.pid" ] || (cd / && unprivileged "$(pg_bin)/pg_ctl" -D "$1/data" -m "${2:-immediate}" -w stop >/dev/null 2>&1) || true
}

# As many descriptors as this user may have: 500 clients are 500 sockets, and the default is 1024 for everything.
raise_limits() { ulimit -n "$(ulimit -Hn)" 2>/dev/null || true; }
