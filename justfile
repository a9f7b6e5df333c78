# The commands of this project. `just` lists them; `just check` is the definition of done.
# Tools beyond cargo: just, cargo-nextest (optional), cargo-deny. CONTRIBUTING.md says where they come from.

set shell := ["bash", "-euo", "pipefail", "-c"]

deny_version := "0.20.2"
mutants_version := "27.1.0"
machines := "sync-core/src/client/{document,outbox,state}/*.rs sync-core/src/client/session.rs sync-core/src/server/session/*.rs sync-core/src/server/room/{*.rs,presence/*.rs,presence/table/*.rs}"

# What cargo installed comes first: the wrapper that pip installs for just puts its own folder, and what is outdated there, in front.
export PATH := env("CARGO_HOME", env("HOME") / ".cargo") / "bin:" + env("PATH")

# List the recipes.
default:
    @just --list --unsorted

# Everything that has to pass before a change is merged.
check: formatted lint features docs deny test

# Run all tests: with nextest where it is installed, and the doctests, which nextest does not run.
test:
    if cargo nextest --version >/dev/null 2>&1; then \
        cargo nextest run --workspace --all-features && cargo test --workspace --all-features --doc; \
    else \
        cargo test --workspace --all-features; \
    fi

# Format the code.
fmt:
    cargo fmt --all

# Fail if the code is not formatted.
formatted:
    cargo fmt --all -- --check

# Fail on any warning of the compiler or of clippy.
lint:
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# Fail if a crate does not build without a warning with each of its features alone, and with none.
features:
    @for crate in sync-core sync-client sync-server; do \
        for feature in "" $(sed -n '/^\[features\]/,/^\[dep/s/^\([a-z-]*\) = .*/\1/p' "$crate/Cargo.toml"); do \
            echo "$crate with ${feature:-nothing}"; \
            cargo clippy --quiet -p "$crate" --no-default-features --features "$feature" -- -D warnings; \
        done; \
    done

# Build the docs, as users see them and then with private items; fail on a broken link.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps --document-private-items

# Check licences, bans and sources of all dependencies (deny.toml). Needs no network.
deny:
    cargo deny --locked check --hide-inclusion-graph bans licenses sources

# Check all dependencies against the RustSec database. Fetches it.
advisories:
    cargo deny --locked check advisories

# Install cargo-deny at the version this project uses, built without optimisation: a minute instead of three.
install-deny:
    env -u CARGO_TARGET_DIR cargo install cargo-deny --version {{ deny_version }} --locked --debug

# Have ten thousand sockets connect and say nothing. Takes 20,000 file descriptors: `ulimit -Hn` says how many there may be.
half-open n="10000":
    HALF_OPEN={{ n }} cargo test -p sync-server --all-features --test half_open -- --nocapture thousands

# Measure durable appends next to a plain file. The directory should be on the disk in question.
bench-store *arguments:
    cargo bench -p sync-server --bench store -- {{ arguments }}

# Measure engines: checks of yrs changes; mergeable types: writes, imports, keystrokes in a long text, differences.
bench-engines *arguments:
    cargo bench -p sync-core --features yrs --bench engines -- {{ arguments }}

# Measure a scenario next to a bare relay, RUNS times, or all of them: `just bench fan-out 5`. docs/benchmarks.md lists them.
bench scenario="" runs="5" *arguments:
    cargo build --release -p sync-bench
    "${CARGO_TARGET_DIR:-target}/release/bench" run {{ scenario }} --runs {{ runs }} {{ arguments }}

# Try the merge laws of every mergeable type, CASES times with generated edits, and undo and broken bytes as often.
laws cases="100000":
    LAWS_CASES={{ cases }} cargo test --release -p sync-core --test mergeable_types --test mergeable_hostile

# Explore small worlds of the machines exhaustively, with larger bounds than the tests (docs/testing.md, "Model checks").
explore *filter:
    cargo test --release -p sync-core --all-features --test explore -- --ignored --nocapture --test-threads 2 {{ filter }}

# What is not looked at is in .cargo/mutants.toml; all files take hours.
# Change the machines (or FILES of them), one change of the code at a time, and list those that no test notices (docs/testing.md).
mutants *files=machines:
    @cargo mutants --version >/dev/null 2>&1 || { echo "cargo install cargo-mutants --version {{ mutants_version }} --locked" >&2; exit 1; }
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=1 cargo mutants --package sync-core --test-package sync-core --no-shuffle \
        --output "${CARGO_TARGET_DIR:-target}" $(printf -- "--file %s " {{ files }})

# List the acceptance scenarios that tests cite (docs/testing.md), each with its places.
scenarios:
    @git grep --untracked -noE '//[/!].*\bScenarios? [0-9]+((, | and |, and )[0-9]+)*' -- '*.rs' \
        | sed -E 's/^([^:]+:[0-9]+):.*Scenarios? /\1\t/' \
        | awk -F '\t' '{ n = split($2, numbers, /[^0-9]+/); for (i = 1; i <= n; i++) print numbers[i] "\t" $1 }' \
        | sort -u -k1,1n -k2,2

# Sends CASES mutated changes and snapshots of every engine to a server with worker processes.
hostile cases="5000" seed="1":
    cargo run --release -p sync-examples --features hostile --bin hostile -- {{cases}} {{seed}}

# Kills real server and client processes, ROUNDS times, and looks for anything lost or doubled.
crash rounds="100" seed="1":
    cargo run --release -p sync-examples --bin crash -- --rounds {{rounds}} --seed {{seed}}

# Cuts CLIENTS connections at once, then drains the server under them: how long until all are back, and is anything lost?
storm clients="5000" *arguments:
    cargo build --release -p sync-server --features bin --bin sync-server
    cargo build --release -p sync-examples --bin storm
    "${CARGO_TARGET_DIR:-target}/release/storm" --clients {{ clients }} --edits 500 --drain 10 \
        --program "${CARGO_TARGET_DIR:-target}/release/sync-server" {{ arguments }}

# The example `rooms`, playing by itself on the server program.
rooms:
    cargo build -p sync-server --features bin --bin sync-server
    cargo run -p sync-examples --bin rooms -- --demo --program "${CARGO_TARGET_DIR:-target}/debug/sync-server"

# Build one fuzz target, or all of them. Takes the nightly toolchain, cargo-fuzz (`cargo install cargo-fuzz`) and a C++ compiler.
fuzz-build *target:
    # With the dependencies that the workspace has.
    cp Cargo.lock sync-core/fuzz/Cargo.lock
    cd sync-core && cargo +nightly fuzz build --sanitizer none {{ target }}

# Feed a fuzz target for so many seconds. What it finds is put into sync-core/fuzz/artifacts; what it learns, into .fuzz.
fuzz target seconds="60": (fuzz-build target)
    mkdir -p .fuzz/{{ target }}
    SYNC_FUZZ_SEEDS="$PWD/.fuzz" cargo test --quiet -p sync-fuzz-targets --all-features --test replay -- seeds_are_written
    cd sync-core && cargo +nightly fuzz run --sanitizer none {{ target }} ../.fuzz/{{ target }} fuzz/corpus/{{ target }} -- \
        -max_total_time={{ seconds }} -timeout=10 -rss_limit_mb=2048 -print_final_stats=1

# Feed every fuzz target for so many seconds, one after the other.
fuzz-all seconds="60":
    @for target in $(ls sync-core/fuzz/fuzz_targets | sed 's/\.rs$//'); do just fuzz "$target" {{ seconds }}; done

# Runs SEEDS plans in simulated worlds, from the seed FIRST on; a failure is printed as a test, cut down to what it takes.
sim seeds="100000" first="1":
    cargo run --release -p sync-sim --bin sim -- {{ seeds }} {{ first }}
