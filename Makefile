# `make book` and `make test` do all their own set-up: a virtual environment with the versions of requirements.lock.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed-from-lock

export OMP_NUM_THREADS ?= 1
.DEFAULT_GOAL := help
.PHONY: help book slides pdf links test launched cluster federated faults browser lint bench lock clean

help: ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 14

book: $(READY) ## Execute the notebooks and build the pages (quick profile, no download of data)
	@$(BIN)/wdlg book

slides: $(READY) ## Make the lectures' slides again, from the pages of the last build
	@$(BIN)/wdlg slides

pdf: $(READY) ## Print the built pages into one PDF (after make book; needs a Chromium)
	@$(BIN)/wdlg pdf

links: $(READY) ## Ask every external address of the built book whether it is still there (after make book)
	@$(BIN)/jupyter-book build book/executed --builder linkcheck

test: lint ## Check style, types and notebooks, then run the tests
	@$(BIN)/python -m pytest

launched: $(READY) ## Execute every notebook as launched: outside the repository, the package from a wheel
	@WDLG_LAUNCHED=as-they-are $(BIN)/python -m pytest -m '' tests/book/test_launch.py

cluster: $(READY) ## Run studies on local Dask clusters and kill workers, runners and a scheduler (some two minutes)
	@$(BIN)/python -m pytest -n 0 -s -m cluster tests/study/test_cluster.py $(CLUSTER)

federated: .venv-federated/.installed-from-lock ## Attack a round of Flower, in an environment of its own (some 20 seconds once that is there)
	@.venv-federated/bin/python -m benchmarks.federated --check

.venv-federated/.installed-from-lock: requirements-federated.lock pyproject.toml
	$(PYTHON) -m venv .venv-federated
	.venv-federated/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-federated.lock
	.venv-federated/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

faults: $(READY) ## Kill, fill and corrupt studies at 50 random moments (some ten minutes)
	@$(BIN)/python -m pytest -n 0 -s -m faults tests/study/test_faults.py

browser: $(READY) ## Look at the built pages in a browser (after make book; needs a Chromium)
	@WDLG_BROWSER=required $(BIN)/python -m pytest -m browser tests/book/test_browser.py $(BROWSER)

bench: $(READY) ## Measure the engine side by side with the plain way (about a quarter of an hour, on an idle machine)
	@env -u OMP_NUM_THREADS $(BIN)/python -m benchmarks

mutants: $(READY) ## Change lines of the library one by one and see which changes no test notices (about half an hour)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'mutmut>=3.8.1'
	@$(BIN)/python tests/mutants.py $(MUTANTS)

lint: $(READY) ## Check style, types, and that notebooks carry no outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb

lock: ## Renew requirements.lock with the newest versions that pyproject.toml allows
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet '.[book,cluster,private,test]'
	{ grep '^#' requirements.lock; .venv-lock/bin/python -m pip freeze --exclude wdlg \
	  | grep -vi '^nvidia-\|^cuda-\|^triton' | sed 's/+cpu$$//' | sort -f; } > requirements.lock.new
	mv requirements.lock.new requirements.lock
	rm -rf .venv-lock

clean: ## Remove what was built; keep the virtual environment
	rm -rf book/executed book/_build mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
	  "Python 3.11 or newer is needed, but $(PYTHON) is '$$($(PYTHON) --version 2>&1)': name another with make PYTHON=..." \
	  >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo \
	  "$(PYTHON) -m venv failed: install the venv module of your Python (on Debian and Ubuntu: python3-venv)." \
	  >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(READY)
