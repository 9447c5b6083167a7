# make report: the notebooks, executed, as one HTML file      make test: every check      make lab: JupyterLab
# Each sets up .venv first. Without make: python3 -m tpsnet_lib setup | report | check | lab
PYTHON ?= python3
PROFILE ?= quick
ARGS ?=
TPSNET := $(if $(filter Windows_NT,$(OS)),.venv/Scripts/python,.venv/bin/python) -m tpsnet_lib

.PHONY: setup report test lab
setup:
	@$(PYTHON) -m tpsnet_lib setup

report: setup
	@$(TPSNET) report --profile $(PROFILE)

test: setup
	@$(TPSNET) check

lab: setup
	@$(TPSNET) lab -- $(ARGS)
