# make demo: set up and run the main job on the bundled recordings.  make test: set up and run the tests.
# make speak TEXT="A sentence." [OUT=speak.wav]: set up and speak it.
.PHONY: demo speak test lint clean
PYTHON := .venv/bin/python

demo: .venv/.ready
	egs/ljspeech/voc1/local/demo.sh
	egs/universal/voc1/local/demo.sh

speak: export TEXT ?= The birch canoe slid on the smooth planks.
speak: export OUT ?= speak.wav
speak: .venv/.ready
	@PYTHONWARNINGS=ignore::SyntaxWarning,ignore::FutureWarning,ignore:pkg_resources \
		$(PYTHON) egs/ljspeech/tts1/voice.py $(if $(findstring file,$(origin OUT)),--overwrite) speak "$$TEXT" -o "$$OUT"

test: .venv/.ready
	$(PYTHON) -m pytest -n 2 --dist loadfile

lint: .venv/.ready
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check . && $(PYTHON) -m mypy

.venv/.ready: setup.cfg pyproject.toml .ci/setup
	@.ci/setup

clean:
	rm -rf .venv egs/*/voc1/exp egs/*/voc1/data
