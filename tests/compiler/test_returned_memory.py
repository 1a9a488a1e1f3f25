"""Returned memory: circles are collected."""

import gc
import weakref

from latentc.compiler.returned_memory import return_memory, returned_memory


class Circle:
    def __init__(self) -> None:
        self.itself = self


def test_what_refers_to_itself_is_gone() -> None:
    gc.disable()
    try:
        gone = weakref.ref(Circle())
        assert gone() is not None
        return_memory()
        assert gone() is None
    finally:
        gc.enable()


def test_little_is_left_where_it_is() -> None:
    gc.disable()
    try:
        with returned_memory(2**30):
            kept = weakref.ref(Circle())
        assert kept() is not None
        with returned_memory(-(2**30)):
            pass
        assert kept() is None
    finally:
        gc.enable()
