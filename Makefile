# Every target sets up .venv by itself; nothing is done twice.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: install demo demo-train gpu-pack test test-faults test-cluster test-browser lint format clean
.DEFAULT_GOAL := install

install: .venv/installed  ## set up .venv with the tested versions

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("diffgen needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install  ## the shipped bundle → large images with label maps → a training loop, on a CPU
	$(BIN)/python jobs/demo.py

demo-train: install  ## a real slide → the shipped bundle, fine-tuned → its own images, on a CPU
	$(BIN)/python jobs/demo_train.py

# What machines with torch often lack; the others that the recipe needs come with torch, scikit-image, tensorboard.
GPU_WHEELS := diffusers pydantic pydantic_core annotated-types typing-inspection typing_extensions \
  importlib_metadata lazy-importer webdataset braceexpand
GPU_PYTHON ?= 3.12

gpu-pack: install  ## gpu-pack/: the recipe for a machine with a card, without a network (SOURCE=folder of EBHI-Seg)
	@test -d "$(SOURCE)" || { echo "gpu-pack: SOURCE=FOLDER, with images/ and masks/ in it" >&2; exit 2; }
	rm -rf gpu-pack
	$(BIN)/pip download --quiet --no-deps --only-binary=:all: --python-version $(GPU_PYTHON) --implementation cp \
	  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
	  --constraint constraints.txt --dest gpu-pack/wheels $(GPU_WHEELS)
	$(BIN)/python jobs/bundle.py "$(SOURCE)" --pack gpu-pack $(if $(AUTOENCODER),--autoencoder "$(AUTOENCODER)")

lint: install  ## format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint  ## lint, then every test, on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-faults: install  ## runs killed again and again, moved, resized, on S3: minutes each
	$(BIN)/python -m pytest -m faults

test-cluster: .venv/cluster  ## jobs on several hosts, that are network namespaces: root, iproute2, 24 minutes
	$(BIN)/python -m pytest tests/cluster -m cluster

.venv/cluster: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,cluster]'
	touch $@

test-browser: .venv/browser  ## the report looked at and clicked through in a real Chromium
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || $(INSTALL_CHROMIUM)
	$(BIN)/python -m pytest tests/browser -m browser

.venv/browser: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,browser]'
	touch $@

define INSTALL_CHROMIUM
{ command -v apt-get >/dev/null || { echo "test-browser: put chromium and chromedriver on the PATH (no apt-get here to install them)" >&2; exit 1; }; \
  as_root=$$(test "$$(id -u)" = 0 || echo sudo); \
  $$as_root apt-get update -qq && $$as_root apt-get install -qq -y chromium chromium-driver; }
endef

format: install  ## rewrite the code in the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
