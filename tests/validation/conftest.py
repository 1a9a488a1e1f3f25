from pathlib import Path

import pytest
from tests.validation.made_reference import small_bundle, write_reference

from latentc.runtime.bundle import Bundle
from latentc.validation.reference import Reference, read_reference


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_bundle(tmp_path_factory.mktemp("bundle") / "onnx")


@pytest.fixture(scope="session")
def reference_folder(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Path:
    return write_reference(tmp_path_factory.mktemp("reference") / "reference", bundle)


@pytest.fixture
def reference(reference_folder: Path) -> Reference:
    return read_reference(reference_folder)
