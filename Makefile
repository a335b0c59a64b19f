# The commands of this project; README.md says what each is for.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Options: ONCE=1 (demo), ARGS="…" (test, bench), CHAOS_SECONDS=600 (chaos), FUZZ_SECONDS=60 (fuzz), PGBOUNCER=path ODYSSEY=path (bench)
ONCE ?=
ARGS ?=
CHAOS_SECONDS ?= 600
FUZZ_SECONDS ?= 60
PGBOUNCER ?=
ODYSSEY ?=

.PHONY: help demo test check bench regress chaos fuzz fmt

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## start a throwaway Postgres and the proxy, and show what it does (ONCE=1: end after the tour)
	@tests/scripts/install build postgres
	@ONCE=$(ONCE) tests/demo/run

test: ## every test that this machine can run, and what it could not
	@tests/scripts/test $(ARGS)

check: ## formatting, lints, documentation: warnings are errors
	@tests/scripts/install build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace

bench: ## the proxy beside pgbouncer and no proxy at all: table and target/bench/*.json
	@PGBOUNCER=$(PGBOUNCER) tests/scripts/install build postgres bench
	cargo build --release -p pgdog
	cargo build -p pgdog-tests --bin bench
	@PGBOUNCER=$(PGBOUNCER) ODYSSEY=$(ODYSSEY) "$${CARGO_TARGET_DIR:-target}/debug/bench" $(ARGS)

regress: ## PostgreSQL's own regression suite, directly and through the proxy
	@tests/scripts/install build postgres regress
	@tests/regress/run $(ARGS)

chaos: ## the integration tests that break things, for CHAOS_SECONDS
	@tests/scripts/install build postgres
	cargo build -p pgdog
	CHAOS_SECONDS=$(CHAOS_SECONDS) cargo test -p pgdog-tests --test suite -- chaos --nocapture

fuzz: ## the property tests of every decoder, for FUZZ_SECONDS
	@tests/scripts/install build
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/scripts/fuzz

fmt: ## format everything
	cargo fmt --all
