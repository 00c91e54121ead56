# Every target is one line that can be typed. Settings: PYTHON=python3.12, VENV=folder, PIP_ARGS="--extra-index-url ...",
# of test-core NUMPY=1.26, and of book and serve PRACTICE=1
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
NUMPY ?=
PRACTICE ?= $(BNBOOK_PRACTICE)

# Of the reader's shell: they would lead Python to other packages than those of the environment.
unexport PYTHONHOME PYTHONPATH
# All files are UTF-8, whatever the locale.
export PYTHONUTF8 = 1

.PHONY: book pdf zip test check test-core lab student serve bench lint clean

book: reading  ## build the pages and say where they are
	BNBOOK_PRACTICE="$(PRACTICE)" "$(VENV)/bin/jupyter-book" build . -W --keep-going
	@"$(VENV)/bin/python" -c "import pathlib; print('Open', pathlib.Path('_build/html/index.html').resolve().as_uri())"

pdf: book  ## print the book as one PDF, with Chromium
	"$(VENV)/bin/python" tools/make_pdf.py

zip: book  ## pack the pages into one file, to read without a network
	"$(VENV)/bin/python" tools/make_zip.py

# As many workers as processors; a file stays on one worker, and the longest files start first.
PYTEST = "$(VENV)/bin/python" -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations=10


test: everything  ## run all tests: the package, the notebooks, the built pages
	$(PYTEST)

check: everything  ## run what is quick, while working
	$(PYTEST) -m "not long" tests book/02_forward.ipynb

# An environment of its own, beside the others: one for each Python and NumPy that were named.
CORE = .venv-core/$(subst /,_,$(PYTHON))-numpy$(NUMPY)
test-core:  ## run the tests that need no PyTorch, on another Python or NumPy
	@"$(PYTHON)" tools/set_up.py core --venv "$(CORE)" --named $(if $(NUMPY),--numpy "$(NUMPY)") -- $(PIP_ARGS)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 "$(CORE)/bin/python" -m pytest -o addopts=--import-mode=importlib -n auto --dist loadfile --ignore tests/site --ignore tests/notebooks tests

lab: everything  ## open the notebooks
	"$(VENV)/bin/jupyter" lab book

student: everything  ## write the notebooks without their solutions
	"$(VENV)/bin/python" tools/nb.py student

serve: book  ## show the built pages at http://localhost:8000
	"$(VENV)/bin/python" -m http.server 8000 --bind localhost --directory _build/html

bench: everything  ## time the package beside PyTorch
	OMP_WAIT_POLICY=PASSIVE "$(VENV)/bin/python" -m tests.benchmarks

lint: everything  ## check style and spelling
	"$(VENV)/bin/ruff" check . && "$(VENV)/bin/ruff" format --check . && "$(VENV)/bin/codespell" *.md book/*.md book/_ext bnbook tests tools

clean:  ## remove what was built; the virtual environment stays
	rm -rf _build .pytest_cache .ruff_cache .hypothesis

# The set-up: nothing where it is done already. See `tools/set_up.py --help`.
.PHONY: reading everything
reading everything:
	@"$(PYTHON)" tools/set_up.py $@ --venv "$(VENV)" $(if $(filter command line,$(origin PYTHON)),--named) -- $(PIP_ARGS)
