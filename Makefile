# make demo   the whole loop on a synthetic cohort; leaves pictures, masks and a report in demo-output
# make test   all checks and tests; what continuous integration runs
# make lint   ruff, mypy and codespell alone
# make reference  the generated parts of the pages in docs/, after options, settings or events changed
# make docs   the documentation in site/; warnings are errors
# Both set everything up on a fresh machine: a virtual environment with pinned packages and, as root
# on Debian or Ubuntu, the system libraries that a window needs.

SHELL := /bin/bash
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p) 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_OUT ?= demo-output
# A display that is there is used; otherwise a virtual one.
XVFB := $(if $(DISPLAY),,xvfb-run --auto-servernum --server-args="-screen 0 1600x1000x24")
export QT_API ?= pyqt5

SYSTEM_PACKAGES := xvfb xauth libgl1 libegl1 libgl1-mesa-dri libglib2.0-0 libxkbcommon-x11-0 \
	libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-xinerama0 \
	libxcb-shape0 libxcb-cursor0 libdbus-1-3 libfontconfig1 fonts-dejavu-core

.PHONY: demo test lint format reference docs system clean

demo: $(VENV)/.installed system
	test ! -e $(DEMO_OUT)/.napari-dycon-demo || rm -rf $(addprefix $(DEMO_OUT)/,cohort project results)
	$(XVFB) $(BIN)/napari-dycon demo --out $(DEMO_OUT) $(if $(DISPLAY),,--screenshot)

# Several processes side by side, with one thread of torch each: more threads than cores only wait
# for each other. Tests of a file stay in one process, where they share what is expensive to make;
# files keep the order that tests/conftest.py gives them.
test: $(VENV)/.installed-dev system lint
	OMP_NUM_THREADS=1 $(XVFB) $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 \
		--dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(VENV)/.installed-dev
	$(BIN)/python docs/hooks.py

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# torch first and alone: its pin decides which build everything after it is resolved against.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; none was found." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[all]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[all,dev]"
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[all,docs]"
	touch $@

system:
	@if [ "$$(uname)" = Linux ] && [ -z "$(DISPLAY)" ] && ! dpkg -s $(SYSTEM_PACKAGES) >/dev/null 2>&1; then \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null; \
	  else \
	    echo "Some of these system packages are missing and only root may install them: $(SYSTEM_PACKAGES)" >&2; \
	    command -v xvfb-run >/dev/null || exit 2; \
	  fi; \
	fi

clean:
	rm -rf $(VENV) $(DEMO_OUT) build dist site .pytest_cache .mypy_cache .ruff_cache
