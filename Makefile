# Every target is one line that can be typed. Settings: PYTHON=python3.12, VENV=folder, PIP_ARGS="--extra-index-url ..."
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check install $(PIP_ARGS)

.PHONY: book test check lab serve bench lint clean

book: $(VENV)/.reading  ## build the pages and say where they are
	$(VENV)/bin/jupyter-book build . -W --keep-going
	@$(VENV)/bin/python -c "import pathlib; print('Open', pathlib.Path('_build/html/index.html').resolve().as_uri())"

# As many workers as processors; a file stays on one worker, and the longest files start first.
PYTEST = $(VENV)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations=10

test: $(VENV)/.everything  ## run all tests: the package, the notebooks, the built pages
	$(PYTEST)

check: $(VENV)/.everything  ## run what is quick, in two minutes, while working
	$(PYTEST) -m "not long" tests book/02_forward.ipynb

lab: $(VENV)/.everything  ## open the notebooks
	$(VENV)/bin/jupyter lab book

serve: book  ## show the built pages at http://localhost:8000
	$(VENV)/bin/python -m http.server 8000 --bind localhost --directory _build/html

bench: $(VENV)/.everything  ## time the package beside PyTorch
	OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/python -m tests.benchmarks

lint: $(VENV)/.everything  ## check style and spelling
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/codespell *.md book/*.md book/_ext bnbook tests tools

clean:  ## remove what was built; the virtual environment stays
	rm -rf _build .pytest_cache .ruff_cache .hypothesis

# Set-up, done again only when what it depends on changes.
$(VENV)/.made: tools/check_python.py
	$(PYTHON) tools/check_python.py && $(PYTHON) -m venv $(VENV) && touch $@

$(VENV)/.reading: $(VENV)/.made requirements-book.txt pyproject.toml
	$(PIP) -r requirements-book.txt && touch $@

$(VENV)/.everything: $(VENV)/.made requirements.txt requirements-book.txt pyproject.toml
	$(PIP) -r requirements.txt && touch $@ $(VENV)/.reading
