# make run: set up .venv and train in front of you.   make test: the checks, under 8 minutes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test lint bench campaign clean

# One stamp per set of extras, remade when the dependencies change.
$(VENV)/.stamp-run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

# With a terminal: the app, training at once. Without: headless progress, and a sample at the end.
run: $(VENV)/.stamp-run
	@if [ -t 0 ] && [ -t 1 ]; then $(BIN)/tui-lab --start micro; \
	else $(BIN)/tui-lab train --config micro --sample; fi

test: $(VENV)/.stamp-test lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# Every ratio against the peers that are here: make bench NANOGPT=checkout DATA=folder ONLY=training
bench: $(VENV)/.stamp-test
	$(BIN)/python -m benchmarks $(if $(NANOGPT),--nanogpt $(NANOGPT)) $(if $(DATA),--data $(DATA)) \
	  $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick)

campaign: $(VENV)/.stamp-test
	$(BIN)/python -m tests.campaign $(ROWS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
