# The commands of this project; README.md says what each is for.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Options of images: VERSION=0.1.0 PROXY_IMAGE=name:tag OPERATOR_IMAGE=name:tag BUILDER=image DOCKER=podman DOCKER_ARGS="…"
# Options: ONCE=1 (demo), ARGS="…" (test, bench), CHAOS_SECONDS=600 (chaos), FUZZ_SECONDS=60 (fuzz), PGBOUNCER=path ODYSSEY=path (bench)
ONCE ?=
ARGS ?=
CHAOS_SECONDS ?= 600
FUZZ_SECONDS ?= 60
PGBOUNCER ?=
ODYSSEY ?=
VERSION ?= $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
PROXY_IMAGE ?= pgdog:$(VERSION)
OPERATOR_IMAGE ?= pgdog-operator:$(VERSION)
BUILDER ?= rust:1-bookworm
DOCKER ?= docker
DOCKER_ARGS ?=

.PHONY: help demo test check bench bench-operator regress chaos fuzz fmt crds manifests images e2e

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## start a throwaway Postgres and the proxy, and show what it does (ONCE=1: end after the tour)
	@tests/scripts/install build postgres
	@ONCE=$(ONCE) tests/demo/run

test: ## every test that this machine can run, and what it could not
	@tests/scripts/test $(ARGS)

check: ## formatting, lints, documentation, charts: warnings are errors
	@tests/scripts/install build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace
	cargo build -p pgdog-operator
	@charts/check

bench: ## the proxy beside pgbouncer and no proxy at all: table and target/bench/*.json
	@PGBOUNCER=$(PGBOUNCER) tests/scripts/install build postgres bench
	cargo build --release -p pgdog
	cargo build -p pgdog-tests --bin bench
	@PGBOUNCER=$(PGBOUNCER) ODYSSEY=$(ODYSSEY) "$${CARGO_TARGET_DIR:-target}/debug/bench" $(ARGS)

bench-operator: ## the operator with 1,000 proxies that are none, against a Kubernetes API server: table
	@tests/scripts/install build
	cargo build --release -p pgdog-operator
	cargo build -p pgdog-operator --example fleet
	@ulimit -n "$$(ulimit -Hn)"; target=$${CARGO_TARGET_DIR:-target}; $$target/debug/examples/fleet --operator $$target/release/pgdog-operator $(ARGS)

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

e2e: ## the scenarios on Kubernetes: on the cluster of KUBECONFIG with E2E_IMAGE, else on a kind cluster of its own
	@tests/scripts/install build
	@e2e/run $(ARGS)

crds: ## crds/ from the operator's types
	cargo build -p pgdog-operator
	@charts/render crds

manifests: crds ## manifests/, and the tables in the charts' READMEs, from the charts
	@charts/render readme manifests

images: ## container images of proxy and operator, PROXY_IMAGE and OPERATOR_IMAGE
	$(DOCKER) build $(DOCKER_ARGS) -f Dockerfile.proxy -t $(PROXY_IMAGE) $(image_args) .
	$(DOCKER) build $(DOCKER_ARGS) -f Dockerfile.operator -t $(OPERATOR_IMAGE) $(image_args) .

image_args = --build-arg BUILDER=$(BUILDER) --build-arg VERSION=$(VERSION) \
	--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null) --build-arg CREATED=$$(date -u +%Y-%m-%dT%H:%M:%SZ)

fmt: ## format everything
	cargo fmt --all
