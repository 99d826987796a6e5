# What a developer types. `make test` is all that CI runs.

CARGO ?= cargo

# Runs a command and says how long it took.
define stage
	@echo "== $(1)"; start=$$(date +%s); $(2) && echo "== $(1): $$(( $$(date +%s) - start )) s"
endef

.PHONY: build test format lint doc unit demo bench torture clean help

help:
	@echo "make demo     build, then play the main job on loopback: a tracker, three clients, one file"
	@echo "make test     everything that must pass: format, lints, docs, all tests"
	@echo "make bench    measure what docs/benchmarks.md lists"
	@echo "make torture  kill trackers, seeders and leechers at hundreds of seeded moments"
	@echo "make build    the release binaries, in target/release"

build:
	$(CARGO) build --release --locked --workspace --bins

test: format lint doc unit

format:
	$(call stage,format,$(CARGO) fmt --all --check)

lint:
	$(call stage,lint,$(CARGO) clippy --locked --workspace --all-targets -- -D warnings)

doc:
	$(call stage,doc,RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items)

unit:
	$(call stage,tests,$(CARGO) test --locked --workspace)

demo: build
	target/release/demo

bench: build
	target/release/bench

torture: build
	target/release/torture

clean:
	$(CARGO) clean
