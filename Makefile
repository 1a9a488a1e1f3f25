# Every task, one line of help each: `make help`.
PYTHON ?= python3
BIN := .venv/bin
STORE := .latentc/store
OUT := out

.DEFAULT_GOAL := help
.PHONY: help demo test check format golden demo-models bench-kill bench-split bench-passes bench-scale bench-latency bench-step bench-kernels bench-fidelity bench-aarch64 bench-plan clean

help:  ## list the tasks
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 26

.venv/compile: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[compile,rtx,eval]'
	@touch $@

.venv/dev: pyproject.toml .venv/compile
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[compile,rtx,eval,genai,dev]'
	@touch $@

demo: .venv/compile  ## compile, validate and run the demo model for three targets
	$(BIN)/latentc build recipes/shapes-sd.yaml --out $(OUT) --store $(STORE)
	@mkdir -p $(OUT)/pictures
	$(BIN)/latentc run $(OUT)/ort-mobile --seed 1 --out $(OUT)/pictures/1.png \
		--prompt "a large red circle to the left of a small blue star on a white background"
	$(BIN)/latentc run $(OUT)/ort-mobile --seed 2 --out $(OUT)/pictures/2.png \
		--prompt "a small yellow triangle above a large green square on a black background"
	@echo "pictures: $(OUT)/pictures   report: $(OUT)/report/report.html"

test: .venv/dev check  ## set up what is needed and run the whole suite
	$(BIN)/python -m pytest

check: .venv/dev  ## format, lint, types and import direction, as the CI does
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev  ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

golden: .venv/dev  ## rewrite the golden graphs; read the diff before you commit it
	$(BIN)/python -m pytest tests/passes --update-golden

demo-models: .venv/dev  ## train the shapes models again from their seed (hours)
	$(BIN)/python -m latentc.recipes.shapes.train

bench-kill: .venv/dev  ## 50 builds killed at random moments, started again, compared (half an hour)
	$(BIN)/python tests/bench/kill_builds.py --builds 50

bench-split: .venv/dev  ## low-rank split + INT4 against plain INT4, both families, 64 prompts (20 minutes)
	$(BIN)/python tests/bench/split_against_plain.py --store $(STORE)

bench-passes: .venv/dev  ## seconds of each pass for a million weights, on layers of FLUX.1's size (15 minutes)
	$(BIN)/python -m tests.bench.pass_speed
	$(BIN)/python -m tests.bench.split_accuracy

bench-scale: .venv/dev  ## memory, time, floor and kills of large denoisers (ARGS="--model flux --memory 2048 --floor": 31 GB of disk)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.scale.run $(ARGS)

bench-step: .venv/dev  ## seconds of one denoiser step at published widths (20 minutes, 12 GB; ARGS="--peers PYTHON")
	$(BIN)/python -m tests.bench.step_speed .latentc/bench-step $(ARGS)

bench-kernels: .venv/dev  ## operators in each form that onnxruntime's CPU has (1 minute)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.kernel_speed

bench-latency: .venv/dev  ## the latency model against what onnxruntime takes (2 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.latency_model

.latentc/bench-fidelity/venv/made: tests/bench/fidelity/peer_modelopt.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

bench-fidelity: .venv/dev .latentc/bench-fidelity/venv/made  ## 4-bit methods at equal bytes, a peer's too (many hours, goes on where it was; ARGS=--help)
	$(BIN)/python -m tests.bench.fidelity.run $(ARGS)

bench-aarch64: .venv/dev  ## the bundle of `make demo` on an emulated aarch64 (root and Debian needed)
	$(BIN)/python tests/device/aarch64.py .latentc/aarch64 $(OUT)/ort-mobile

bench-plan: .venv/dev  ## what `latentc plan` foretells against ten builds and their runs (half an hour, goes on where it was)
	$(BIN)/python -m tests.bench.plan_accuracy $(ARGS)

clean:  ## remove what the tasks made, the environment excepted
	rm -rf $(OUT) .latentc build dist .mypy_cache .ruff_cache .pytest_cache
