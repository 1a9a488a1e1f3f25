from importlib import metadata

from latentc.compiler.doctor import EXTRAS, examine


def test_finds_what_is_installed_and_names_the_extra_of_what_is_not() -> None:
    checks = {check.what: check for check in examine()}
    assert checks["numpy"].found == metadata.version("numpy")
    assert checks["[compile] torch"].fix == ""
    for check in checks.values():
        if check.found == "missing":
            extra = check.what.split("]")[0].strip("[")
            assert check.fix == f"pip install 'latentc[{extra}]'"


def test_every_extra_of_the_project_is_examined() -> None:
    declared = {
        extra for extra in metadata.metadata("latentc").get_all("Provides-Extra") or [] if extra != "dev"
    }
    assert {extra for extra, _ in EXTRAS if extra} == declared
