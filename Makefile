# A fresh Debian machine with Python >= 3.11, git and make is enough: `make demo`.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev
CONSTRAINTS ?= deploy/constraints/$(or $(PLATFORM_$(shell uname -m)),$(shell uname -m)).txt
PLATFORM_x86_64 := x86-64
PLATFORM_aarch64 := raspberry-pi

BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.PHONY: help demo campaign test check env wheels clean

help: ## say what there is to make
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/make \1\t\2/p' Makefile | expand -t 16

demo: $(STAMP) ## train over emulated 5G, WiFi and Ethernet, then compare: the newcomer's command
	$(BIN)/fltestbed demo

campaign: $(STAMP) ## rehearse the paper, 15 runs over emulated links, and put its table and figures into the README
	$(BIN)/fltestbed campaign paper
	mkdir -p plots analysis/campaign
	$(BIN)/fltestbed summary runs/paper/*/ --out plots/paper.txt
	$(BIN)/fltestbed plot runs/paper/*/ --out plots/paper
	cp plots/paper/anatomy.png plots/paper/transfers.png analysis/campaign/
	{ echo; echo '```'; sed -n 's/ *$$//; /^Seconds of a round/,/^How many/ { /^How many/!p; }; /^Beside/,$$p' plots/paper.txt; echo '```'; echo; \
	echo '![Mean phases of a round, calibrated links](analysis/campaign/anatomy.png)'; echo; \
	echo '![Uplink and downlink, calibrated links](analysis/campaign/transfers.png)'; echo; } > plots/paper.md
	sed -i -e '/<!-- campaign:/,/<!-- campaign end/{//!d}' -e '/<!-- campaign:/r plots/paper.md' README.md

test: $(STAMP) ## run all tests
	$(BIN)/pytest

check: $(STAMP) ## lint, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/shellcheck .ci/run $$(git ls-files '*.sh')
	cd deploy/ansible && $(abspath $(BIN))/ansible-lint --offline --profile production -q site.yml logs.yml

wheels: $(STAMP) ## check that a Raspberry Pi finds a wheel of every dependency (asks the package index)
	$(BIN)/python deploy/check_wheels.py

env: $(STAMP) ## make the environment that the others use (once, and when what it should hold has changed)

$(STAMP): pyproject.toml $(wildcard deploy/constraints/*.txt) deploy/environment.sh
	@deploy/environment.sh "$(PYTHON)" "$(VENV)" "$(CONSTRAINTS)" "$(EXTRAS)"
	@touch $@

clean: ## remove the environment, caches and builds; runs and plots stay
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path ./.git -prune -o -name __pycache__ -type d -exec rm -rf {} +
