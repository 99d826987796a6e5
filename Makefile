# What a developer types. `make test` is all that CI runs.

CARGO ?= cargo

# Runs a command and says how long it took.
define stage
	@echo "== $(1)"; start=$$(date +%s); $(2) && echo "== $(1): $$(( $$(date +%s) - start )) s"
endef

# How long `make fuzz` feeds each target, in seconds.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := $(basename $(notdir $(sort $(wildcard fuzz/fuzz_targets/*.rs))))

.PHONY: build test format lint doc unit demo bench bench-full torture fuzz clean help

help:
	@echo "make demo     build, then play the main job on loopback: a tracker, three clients, one file"
	@echo "make test     everything that must pass: format, lints, docs, all tests"
	@echo "make bench    measure what docs/benchmarks.md lists"
	@echo "make bench-full  the same, and transfers beside aria2 and libtorrent, as far as they are installed;"
	@echo "              as root also over emulated links"
	@echo "make torture  kill trackers, seeders and leechers at hundreds of seeded moments"
	@echo "make fuzz     feed each parser that faces the network for a minute"
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

bench-full: bench
	target/release/bench -n 5 S1 S2 S3 S4 S5 S5c S6

torture: build
	target/release/torture

# What the fuzzer finds new stays in a directory of its own and goes with it; what breaks a target stays in
# fuzz/artifacts. Instrumentation needs no nightly compiler without a sanitizer.
fuzz:
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { \
		echo "make fuzz needs cargo-fuzz; this installs it: cargo install cargo-fuzz --locked" >&2; exit 1; }
	@set -e; found=$$(mktemp -d); trap 'rm -rf "$$found"' EXIT; \
	for target in $(FUZZ_TARGETS); do \
		echo "== fuzz $$target"; mkdir "$$found/$$target"; \
		$(CARGO) fuzz run --sanitizer none $$target "$$found/$$target" fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -print_funcs=0 -verbosity=0; \
	done

clean:
	$(CARGO) clean
