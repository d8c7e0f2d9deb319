# Two commands do everything: `make book` to read, `make test` to prove. The rest are parts of them.
# What they do is in tools/, in Python; a machine needs Python 3.11 or newer and nothing else.

SYSTEM_PYTHONS := python3 python3.14 python3.13 python3.12 python3.11 python
PYTHON ?= $(firstword $(foreach name,$(SYSTEM_PYTHONS),$(shell command -v $(name) 2>/dev/null)))
RUN := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help environment book html execute scripts rules test lab bench results openings clean

help:
	@echo "make book      build the book and serve it here          (PORT=8000 to choose the port)"
	@echo "make test      every test: package, pages, notebooks, site"
	@echo "make html      build the book only, into _build/html"
	@echo "make execute   run the pages again and save what they show (PAGES=book/channel/se.ipynb for some)"
	@echo "make scripts   give the pages the package's newest viewer scripts, without running them"
	@echo "make rules     hold the pages to the house rules          (PAGES=... for some)"
	@echo "make lab       open the pages in JupyterLab"
	@echo "make results   measure again what results/ holds          (ONLY=results/channel/se.py for some)"
	@echo "make openings  draw again the pictures at the openings of chapters      (ONLY=spatial for one)"
	@echo "make bench     measure each mechanism and the training loop against others' (ONLY=se for some mechanisms)"
	@echo "make clean     remove what was built (the environment stays)"

environment:
	@test -n "$(PYTHON)" || { echo "There is no Python on this machine: install Python 3.11 or newer first."; exit 1; }
	@$(PYTHON) tools/environment.py

html: environment
	@$(RUN) tools/build.py

book: html
	@$(RUN) tools/serve.py

execute: environment
	@$(RUN) tools/execute.py $(PAGES)

scripts: environment
	@$(RUN) tools/scripts.py $(PAGES)

rules: environment
	@$(RUN) tools/house_rules.py $(PAGES)

test: environment
	@$(RUN) tools/run_tests.py $(PARTS)

lab: environment
	@$(RUN) -m jupyterlab book

openings: environment
	@$(RUN) tools/openings.py $(ONLY)

results: environment
	@$(RUN) tools/results.py $(ONLY)

bench: environment
	@$(RUN) tools/bench_modules.py $(ONLY)
	@test -n "$(ONLY)" || $(RUN) tools/bench_fit.py

clean:
	@rm -rf _build .pytest_cache attnlib.egg-info
	@find attnlib book results tests tools -name __pycache__ -prune -exec rm -rf {} +
