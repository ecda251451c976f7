# Every target that needs an environment makes it first, in .venv; `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SERVE ?= .venv-serve
UNDONE = { echo "detector: error: pip could not install everything, see above. Run this again when that is mended." >&2; exit 1; }
QUICK := tests/config tests/wire tests/detection tests/simulation tests/streams/test_memory.py tests/test_times.py \
	$(addprefix tests/engine/test_, clock.py budget.py announcer.py alertwriter.py maintenance.py silence.py)
SCENARIOS := $(addprefix tests/engine/test_, readings_property.py relearning.py verdicts.py)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install install-serve demo test quick fuzz lint format bench kafka chaos verify verify-core verify-kafka verify-frames verify-service verify-people verify-deploy verify-detection docs dist

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## everything into .venv, so that .venv/bin/detector works

$(INSTALLED): pyproject.toml constraints.txt detector/detection/kernel/recurrences.c \
	detector/models/runtime/lstm.c detector/models/runtime/lstm_lanes.h
	@deploy/venv.sh $(PYTHON) $(VENV) 3000
	@echo "Installing into $(VENV): about 800 MB to download (TensorFlow alone is 570 MB), 2.5 GB on disk."
	@$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' || $(UNDONE)
	@touch $@
	@echo "Installed: $(BIN)/detector"

install-serve:  ## what the daemon needs and no TensorFlow, into .venv-serve; SERVE=/opt/detector
	@deploy/venv.sh $(PYTHON) $(SERVE) 400
	@echo "Installing into $(SERVE): about 60 MB to download, 250 MB on disk."
	@$(SERVE)/bin/python -m pip install --disable-pip-version-check --require-hashes --no-deps \
		--requirement deploy/docker/requirements-serve.lock || $(UNDONE)
	@$(SERVE)/bin/python -m pip install --disable-pip-version-check --no-deps . || $(UNDONE)
	@echo "Installed: $(SERVE)/bin/detector"

demo: $(INSTALLED)  ## a simulated plant: train, run the daemon over its stream, sum up
	$(BIN)/detector demo

# A file's tests stay together: they share what is dear to make (a broker, a trained model).
test: $(INSTALLED)  ## all tests, on the cores there are; PYTEST_ARGS="-k name" chooses
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile $(PYTEST_ARGS)

quick: $(INSTALLED)  ## for the inner loop: the pure stages and the in-memory contract, under 30 s on two idle cores
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile -m "not slow and not kafka" $(QUICK) $(PYTEST_ARGS)

lint: $(INSTALLED)  ## style, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict detector tests benchmarks deploy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## write the code the way lint wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)  ## readings and frames per second and memory, beside bare ONNX Runtime
	$(BIN)/python -m benchmarks.speed

verify: verify-core verify-kafka verify-frames verify-service verify-people verify-deploy verify-detection  ## every proof below, one after the other

verify-core: $(INSTALLED)  ## the reading path end to end: demo counts, 50 kills, backtest equals run
	$(BIN)/python -m tests.verify_core $(VERIFY_ARGS)

verify-kafka: $(INSTALLED)  ## Kafka on a real broker: tests, short chaos, speed gates; needs Java and Maven
	$(BIN)/python -m tests.verify_kafka

verify-frames: $(INSTALLED)  ## cameras: both paths over 30 kills, frames a second, AUROC; needs dataset-fashion-mnist
	$(BIN)/python -m tests.verify_frames

verify-service: $(INSTALLED)  ## the daemon as a service: units, metrics, page, load, reloads, deployment; needs .ci/tools
	$(BIN)/python -m tests.verify_service

verify-people: $(INSTALLED)  ## incidents and notifications over kills, with a real Alertmanager; needs .ci/tools
	$(BIN)/python -m tests.verify_people

verify-deploy: $(INSTALLED)  ## installing, images, Kubernetes, Helm, units, dashboards, pages and what they show; needs .ci/tools
	$(BIN)/python -m tests.verify_deploy

verify-detection: $(INSTALLED)  ## detection on labelled data: every gate, dense model; needs $$DETECTOR_DATASETS
	$(BIN)/python -m benchmarks.quality --gate

kafka: $(INSTALLED)  ## a Kafka broker for trying things out, in the foreground; prints its address
	$(BIN)/python -m tests.kafka.broker

fuzz: $(INSTALLED)  ## attack decoders, files, HTTP and the engine for longer than the tests do; FUZZ_TIMES=50
	FUZZ_TIMES=$(or $(FUZZ_TIMES),20) $(BIN)/python -m pytest -q tests/fuzz $(SCENARIOS) --timeout 3600 $(PYTEST_ARGS)

chaos: $(INSTALLED)  ## kill daemons and broker, compare with a run without faults; CHAOS_FAULTS=200, CHAOS_ARGS="--short --machines"
	$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

docs: $(INSTALLED)  ## the documentation as a site in var/docs/site, links checked; open its index.html
	@deploy/venv.sh $(PYTHON) .venv-docs 200
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r deploy/site/requirements.txt || $(UNDONE)
	$(BIN)/python -m deploy.site
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict --config-file deploy/site/mkdocs.yml

dist: $(INSTALLED)  ## for a release: wheel, sources, a bill of materials (CycloneDX) and checksums in dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m venv dist/.tools && dist/.tools/bin/python -m pip install --quiet 'cyclonedx-bom>=7.5,<8'
	dist/.tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file dist/detector.cdx.json $(BIN)/python
	rm -r dist/.tools
	cd dist && sha256sum * > SHA256SUMS
