# The front door. `make run` and `make test` install what is missing (apt-get; Rust by rustup).
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help run image flash test test-all test-fast test-clients test-image test-qemu lint style oracle bench bench-store bench-cache bench-shipper soak setup-run setup-test

# Where rustup puts cargo; .ci/setup looks there too.
export PATH := $(HOME)/.cargo/bin:$(PATH)

IMAGEGEN := cargo run --release --package imagegen --

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

run: image ## build the image, boot it in QEMU, show it serving
	$(IMAGEGEN) run $(ARGS)

image: setup-run ## build build/larder.raw and what belongs to it
	$(IMAGEGEN) build $(if $(HOST),--host $(HOST))

flash: setup-run ## write the image to a disk: make flash HOST=NAME DISK=/dev/...
	$(IMAGEGEN) flash --host $(HOST) --disk $(DISK)

test: setup-test test-fast test-image test-qemu ## all tests, one case of each property in QEMU

test-all: export LARDER_CLIENTS := 1
test-all: setup-test test-clients ## all tests, the full matrices in QEMU
	LARDER_TEST_ALL=1 $(MAKE) test-fast test-image test-qemu oracle

test-fast: style
	cargo test --workspace --exclude qemu-tests --no-fail-fast

test-clients: ## every client of the cache that the registries have, unmodified
	LARDER_CLIENTS=1 .ci/setup test
	cargo test --package cache --test http clients -- --include-ignored

test-image: image
	cargo test --package imagegen --features built --test built --test reference -- --include-ignored

test-qemu: image
	cargo test --package qemu-tests --no-fail-fast

lint: setup-test style ## formatting, clippy, licences and bans
	command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
	cargo deny --log-level error check bans licenses sources

style:
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets --features imagegen/built,imagegen/oracle -- -D warnings

oracle: setup-test ## the root file system beside a real dpkg installation, secrets beside the vendor's client
	@.ci/setup oracle
	cargo test --package imagegen --features oracle --test oracle -- --nocapture
	PYTHONPATH=$(HOME)/.cache/larder/peers/onepassword-sdk cargo test --package secrets --features oracle --test it oracle

bench: image ## speed and size of build and boot, as ratios
	cargo bench --package imagegen --bench image

setup-run:
	@.ci/setup run

setup-test:
	@.ci/setup test

bench-store: ## the artifact store beside one file an object; LARDER_BENCH_DIR=DIR chooses the disk
	cargo bench --package store --bench store

bench-cache: ## the cache service beside nginx; LARDER_BENCH_LINES=WORD,... chooses lines
	.ci/setup bench
	cargo bench --package appliance --bench cache

bench-shipper: setup-test ## the shipper beside journalctl, node_exporter, Prometheus's agent and vmagent
	cargo bench --package shipper --bench shipper

soak: ## the store nearly full, with faults and restarts, for LARDER_SOAK_SECONDS (default 600)
	LARDER_SOAK_SECONDS=$${LARDER_SOAK_SECONDS:-600} cargo test --release --package store --lib everything_at_once -- --include-ignored --nocapture
