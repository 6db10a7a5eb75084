# The workbook's front door: `make help` lists what there is. GNU make 3.81 or later, any python3 >= 3.11.
#
# `make run` follows the artefacts: a notebook is executed again when it, its share of the parameters, a library module it
# imports or an artefact it reads has changed. A notebook that fails leaves what earlier ones wrote as it was.

RUN    ?= demo
PARAMS ?= params/$(RUN).yaml
ONLY   ?=

# OpenMP counts a machine's cores, not those that this process may use: too many threads are much slower than too few.
CORES                  := $(shell nproc 2>/dev/null || sysctl -n hw.physicalcpu 2>/dev/null || echo 2)
export OMP_NUM_THREADS ?= $(CORES)

VENV    := .venv
READY   := $(VENV)/.ready
PYTHON  := $(VENV)/bin/python
OUT      = outputs/$(RUN)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help doctor run notebooks test matrix lab publish format clean clean-all
ifneq ($(words $(RUN)),1)
$(error RUN='$(RUN)' must be one plain folder name: it becomes outputs/RUN)
endif

help:
	@echo 'make doctor   what is here, what runs in how long, what is missing'
	@echo 'make run      execute the notebooks of the demo, two cores will do; RUN=name PARAMS=file.yaml for another run'
	@echo '              ONLY="01 02 03" chooses notebooks; those that lack images of your own say what they want'
	@echo '              ONLY=08 measures speed, 09 compares with CLIP, 13 tries other languages, 14 checks published weights: when asked for'
	@echo 'make test     style, types, tests, and every notebook in its smallest form'
	@echo 'make matrix   the tests under each Python on PATH and with the lowest versions; TESTS="tests/labels" chooses, CELLS="3.13-newest" too'
	@echo 'make lab      the notebooks in JupyterLab'
	@echo 'make publish  copy a run'"'"'s pages to outputs/published/, without artwork that is not ours (RUN=name)'
	@echo 'make format   put code and notebooks in the house style'
	@echo 'make clean    remove all of outputs/ but outputs/published/; clean-all removes $(VENV) too'

# ---------------------------------------------------------------- set-up

# uv, where it is on PATH, installs the versions in uv.lock; else pip installs the newest that pyproject.toml allows (UV= asks for that).
UV          ?= $(shell command -v uv 2>/dev/null)
TOOL         = $(if $(UV),uv,pip)
LOG          = $(VENV).log
FIND_PYTHON  = for p in python3 python3.13 python3.12 python3.11; do \
	  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done
NO_PYTHON    = no Python 3.11 or later on PATH: install one (or \`conda env create\`), then again
NO_NETWORK   = Could not find a version|No matching distribution|Connection(Error|Refused|Reset)|name resolution|timed out|dns error|Failed to fetch|error sending request
MIRROR_pip   = PIP_INDEX_URL
MIRROR_uv    = UV_DEFAULT_INDEX
NO_SPACE     = No space left on device|os error 28|Disk quota exceeded

SET_UP_uv  = UV_PROJECT_ENVIRONMENT=$(VENV) '$(UV)' sync --no-progress --python "$${UV_PYTHON:->=3.11,<3.14}" --extra dev >$(LOG) 2>&1
SET_UP_pip = $(PYTHON) -m pip install --disable-pip-version-check --no-input --retries 2 -e '.[dev]' >$(LOG) 2>&1

$(READY): pyproject.toml $(if $(UV),$(wildcard uv.lock))
	@if [ -z '$(UV)' ] && ! $(PYTHON) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  python=$$($(FIND_PYTHON)); \
	  test -n "$$python" || { echo "error: $(NO_PYTHON)" >&2; exit 1; }; \
	  $$python -m venv --clear $(VENV) >$(LOG) 2>&1 || { \
	    why='see $(LOG); if that is empty, the disk is full'; \
	    $$python -c 'import ensurepip' 2>/dev/null || why='install its venv module (Debian: apt install python3-venv)'; \
	    echo "error: $$python cannot make $(VENV): $$why" >&2; exit 1; }; \
	fi
	@echo 'Setting up $(VENV): once, some minutes (PyTorch is a few GB); what $(TOOL) says is in $(LOG)'
	@$(SET_UP_$(TOOL)) || { \
	  if grep -qE '$(NO_SPACE)' $(LOG); then \
	    echo "error: no space left: $(VENV) takes up to 8 GB, and $(TOOL) as much for a while in $${TMPDIR:-/tmp} and ~/.cache: make room, then again" >&2; \
	  elif grep -qE 'No interpreter found|python-build-standalone' $(LOG); then \
	    echo "error: $(NO_PYTHON)" >&2; \
	  elif grep -qE '$(NO_NETWORK)' $(LOG); then \
	    wanted=$$(sed -nE 's/.*No matching distribution found for ([^ ;]+).*/ (\1)/p' $(LOG) | tail -1); \
	    echo "error: $(TOOL) cannot reach a package$$wanted: check the network, or name your mirror in $(MIRROR_$(TOOL)), then again" >&2; \
	  else \
	    echo "error: $(TOOL) failed ($$(grep -iE '^ *error' $(LOG) | tail -1)): see $(LOG)" >&2; \
	  fi; exit 1; }
	@touch $@

# What is here, what runs in how long, what is missing; before set-up too, when any Python will do.
doctor:
	@python=$(PYTHON); test -e $(READY) || python=$$($(FIND_PYTHON)); \
	  test -n "$$python" || { echo "error: $(NO_PYTHON)" >&2; exit 1; }; \
	  $$python -m catlip_lite.workbook.doctor

# ---------------------------------------------------------------- a run

# $(call notebook,NAME,WRITES,READS,IMAGES,WHEN): artefacts are paths in outputs/<run>/; IMAGES are the parameters without which it
# has no images to work on; WHEN is empty, or `asked`: run only if ONLY names it. Rules are made for the notebooks in CHOSEN
# alone. The rendered notebook is the target: it is new after every execution, also when an artefact stayed as it was (training
# that had already finished); what reads an artefact is redone only if that artefact is new.
define notebook
TABLE += '$(1):$(2):$(3):$(4):$(5)'
ifneq ($$(filter $(1),$$(CHOSEN)),)
READS := $$(addprefix $$(OUT)/,$(3))
RENDERED += $$(OUT)/notebooks/$(1).ipynb

$$(OUT)/notebooks/$(1).ipynb: notebooks/$(1).ipynb $$(OUT)/params/$(1).yaml $$(sort $$(filter $$(ARTEFACTS),$$(READS)) $$(wildcard $$(READS)))
	@echo '── $(1)'
	@$$(PYTHON) -m catlip_lite.workbook $$< --run '$$(RUN)' --params '$$(PARAMS)'

$$(OUT)/$(2): $$(OUT)/notebooks/$(1).ipynb
	@test -e $$@ || { rm -f $$<; $$(MAKE) --no-print-directory $$<; }
	@test -e $$@ || { echo 'error: notebook $(1) ran but did not write $$@' >&2; exit 1; }

ARTEFACTS += $$(OUT)/$(2)
endif
endef

$(eval $(call notebook,01_synset_analysis,synset_counts.parquet,,,))
$(eval $(call notebook,02_vocab_pruning,vocabulary.parquet,synset_counts.parquet,,))
$(eval $(call notebook,03_imagenet_overlap,label_matches.parquet,vocabulary.parquet,,))
$(eval $(call notebook,04_pretrain,pretrain/model.safetensors,vocabulary.parquet,shards,))
$(eval $(call notebook,05_probe,probe.parquet,pretrain/model.safetensors,probe_train probe_tests,))
$(eval $(call notebook,06_transfer_init,transfer_init.parquet,pretrain/model.safetensors,labelled tests,))
$(eval $(call notebook,07_finetune,finetune.parquet,pretrain/model.safetensors,labelled tests,))
$(eval $(call notebook,08_speed,speed.parquet,,,asked))
$(eval $(call notebook,09_catlip_vs_clip,catlip_vs_clip.parquet,,shards probe_train probe_tests,asked))
$(eval $(call notebook,10_multi_label,multi_label.parquet,pretrain/model.safetensors,multi_label_train multi_label_tests,))
$(eval $(call notebook,11_segmentation,segmentation.parquet,pretrain/model.safetensors,segmentation_train segmentation_test,))
$(eval $(call notebook,12_detection,detection.parquet,pretrain/model.safetensors,detection_train detection_test,))
$(eval $(call notebook,13_open_questions,open_questions.parquet,,probe_train tests,asked))
$(eval $(call notebook,14_published_weights,published_weights.parquet,,,asked))

.PRECIOUS: $(RENDERED) $(ARTEFACTS)

# The parameters are checked each time, before anything runs; a notebook's share changes only if one of its own values does.
run: | $(READY)
	@chosen=$$($(PYTHON) -m catlip_lite.workbook --choose $(TABLE) --run '$(RUN)' --params '$(PARAMS)' --only '$(ONLY)') \
	  && $(MAKE) --no-print-directory notebooks CHOSEN="$$chosen"

notebooks: $(RENDERED) $(ARTEFACTS)
	@echo '$(OUT)/index.html is up to date'

# Which library modules a notebook imports, written when it was executed.
-include $(RENDERED:.ipynb=.d)

publish: | $(READY)
	@$(PYTHON) -m catlip_lite.workbook --publish --run '$(RUN)'

# ---------------------------------------------------------------- work on the project

# Tests run side by side, a core each: most are too small for threads.
SIDE_BY_SIDE := -n $(CORES) --maxprocesses=4 --dist loadfile --no-loadscope-reorder
test matrix: export PYTHONHASHSEED := 0
test matrix: export OMP_NUM_THREADS := 1

test: | $(READY)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	@rm -rf outputs/smoke
	$(PYTHON) -m pytest $(SIDE_BY_SIDE) --nbmake --nbmake-timeout=900 --durations=10 notebooks/[0-9]*.ipynb tests

# The tests under each Python on PATH and with the lowest versions, each in its own environment: .ci/matrix says more.
matrix:
	@.ci/matrix $(SIDE_BY_SIDE)

lab: | $(READY)
	cd notebooks && ../$(VENV)/bin/jupyter lab

format: | $(READY)
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

clean:
	@if [ -d outputs ]; then find outputs -mindepth 1 -maxdepth 1 ! -name published -exec rm -rf {} +; fi

clean-all: clean
	rm -rf $(VENV) $(VENV).log $(VENV)-3.*
