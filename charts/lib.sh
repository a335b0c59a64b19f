# Shared by the scripts of this folder; sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$root/$target ;; esac

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null; }

# skip WHAT REASON: says it, and to whoever counts
skip() {
  say "SKIPPED: $1: $2"
  [ -z "${PGDOG_SKIPPED:-}" ] || say "$1: $2" >>"$PGDOG_SKIPPED"
}

# The operator's program: PGDOG_OPERATOR, else what cargo built.
operator_program() {
  local program=${PGDOG_OPERATOR:-$target/debug/pgdog-operator}
  [ -x "$program" ] && say "$program"
}

# plain: without what Helm adds for itself, and without empty documents
plain() {
  sed -e '/^# Source: /d' -e '/^ *helm\.sh\/chart: /d' -e '/^ *app\.kubernetes\.io\/managed-by: Helm$/d' |
    awk '/^---$/ { wait = 1; next } /^ *labels:$/ { held = $0; depth = match($0, /[^ ]/); next }
         held != "" { if (match($0, /[^ ]/) > depth) put(held); held = "" }
         /^$/ { next } { put($0) }
         function put(line) { if (wait) { print "---"; wait = 0 } print line }'
}
