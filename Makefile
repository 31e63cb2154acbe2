# Every check has one name here. Build products and downloads are kept in the cache, outside the checkout.
export NEXUS_CACHE ?= $(HOME)/.cache/nexus-gateway
export CARGO_TARGET_DIR := $(NEXUS_CACHE)/target
PYTHON = $(shell cd integration && python3 -c 'import fetch; print(fetch.venv())')/bin/python
MDBOOK = $(shell cd integration && python3 -c 'import fetch; print(fetch.tool(fetch.MDBOOK))')
DENY = $(shell cd integration && python3 -c 'import fetch; print(fetch.tool(fetch.CARGO_DENY))')

# The build that is measured: `make bench BUILD=release` takes the one that is installed.
BUILD = measured
bench profile: export NEXUS_BUILD = $(if $(filter release,$(BUILD)),release,debug)

.PHONY: run test fuzz check book bench profile soak docs build measured release fetch lakes
.DEFAULT_GOAL := build

build: ## Build the gateway, as tests use it: our own crates quick to build, the others optimised where it counts
	cargo build --locked --workspace

measured: export CARGO_PROFILE_DEV_OPT_LEVEL = 2
measured: ## Build the gateway, as benchmarks use it: our own crates optimised too
	cargo build --locked --workspace

release: ## Build the gateway as it is installed, in half an hour: all of it optimised and linked as a whole
	cargo build --locked --release --package nexus-server

run: build ## Serve the demo, show one answer, and print how each client connects
	python3 integration/demo.py

test: ## Fetch, build and test everything, each part against its budget; PARTS=clients runs that part alone
	python3 integration/run.py $(PARTS)

fuzz: ## Bytes from outside for NEXUS_FUZZ_SECONDS a target: led by what they reach where there is cargo-fuzz, else at random
	python3 integration/fuzz.py

check: fetch book ## Format, lints, licences, and the book
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --no-default-features --package nexus-server -- -D warnings
	$(PYTHON) -m ruff check integration
	python3 integration/fetch.py cargo-deny
	$(DENY) --offline check bans licenses sources

book: ## Make web pages of the documentation
	python3 integration/fetch.py mdbook
	$(MDBOOK) build docs --dest-dir $(NEXUS_CACHE)/book

bench: fetch $(BUILD) ## Measure against DataFusion in-process, a bare Flight server, DuckDB and Trino's own client; PARTS="cached scan" runs these parts alone
	python3 integration/fetch.py duckdb trino-client
	$(PYTHON) integration/bench/bench.py $(PARTS)

profile: fetch $(BUILD) ## Record where the gateway's processor time goes, as flame graphs in docs/src/performance; PARTS=scan does so for that path alone
	python3 integration/fetch.py inferno
	$(PYTHON) integration/bench/flames.py $(PARTS)

soak: fetch measured ## Full sizes: 5 GiB through a small memory limit, TPC-H at scale 1, a trail of 100,000 records, two minutes of new certificates, a frozen database, tables of lakes that are written to for a minute, the load tests with all their clients
	NEXUS_TPCH_SCALE=1 $(PYTHON) -m pytest -c integration/pyproject.toml -m soak integration
	NEXUS_TPCH_SCALE=1 $(PYTHON) -m pytest -c integration/pyproject.toml -m "not soak" integration/test_tpch.py integration/test_jdbc_tpch.py integration/test_tls.py integration/test_audit.py integration/test_spill.py integration/test_policy_pushed.py

lakes: fetch ## Have Spark write the tables of lakes and its answers anew, which are kept in integration/lake
	python3 integration/fetch.py spark lake-jars
	$(PYTHON) integration/lake/write.py

docs: build ## Write the generated pages anew
	$(CARGO_TARGET_DIR)/debug/nexus docs connectors > docs/src/connectors.md

fetch:
	python3 integration/fetch.py
