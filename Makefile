# make demo: set up and run the main job on the bundled recordings.  make test: set up and run the tests.
.PHONY: demo test lint clean
PYTHON := .venv/bin/python

demo: .venv/.ready
	egs/ljspeech/voc1/local/demo.sh

test: .venv/.ready
	$(PYTHON) -m pytest -n 2 --dist loadfile

lint: .venv/.ready
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .

.venv/.ready: setup.cfg pyproject.toml .ci/setup
	@.ci/setup

clean:
	rm -rf .venv egs/ljspeech/voc1/exp egs/ljspeech/voc1/data
