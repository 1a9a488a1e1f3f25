import shutil
from pathlib import Path

import numpy as np
import pytest

from latentc.errors import BundleError
from latentc.runtime.bundle import Bundle
from latentc.runtime.generate import open_pipeline
from latentc.validation.draw_pictures import Drawing, draw_pictures
from latentc.validation.measured import Measured
from latentc.validation.reference import Reference, read_reference


def draw(bundle: Bundle, reference: Reference, measured: Measured, workers: int = 1) -> Drawing:
    ticks = iter(range(1000))
    with open_pipeline(bundle, threads=1) as pipeline:
        return draw_pictures(
            pipeline,
            reference,
            bundle.family,
            measured,
            workers=workers,
            clock=lambda: float(next(ticks)),
            progress=lambda fraction, what: None,
        )


def test_the_reference_s_own_noise_gives_the_reference_s_own_latents(
    bundle: Bundle, reference: Reference
) -> None:
    measured = Measured()
    drawing = draw(bundle, reference, measured)
    # the same graphs, the same inputs, one at a time: the same bits
    assert (drawing.trajectory == reference.trajectory()[:, 1:]).all()
    assert (drawing.final_latents == reference.final_latents()).all()
    assert all((picture == reference.picture(n)).all() for n, picture in enumerate(drawing.pictures))
    # the clock moves by 1 a look: 1 s for each picture of 3 steps, and 1 s for decoding it
    assert {t.name: t.seconds for t in measured.timings} == {
        "one step, guidance and scheduler included": pytest.approx(1 / 3),
        "decoding": 1,
        "one picture": 2,
    }


def test_pictures_do_not_depend_on_how_many_are_drawn_at_a_time(bundle: Bundle, reference: Reference) -> None:
    alone, together = draw(bundle, reference, Measured()), draw(bundle, reference, Measured(), workers=3)
    assert (alone.trajectory == together.trajectory).all()
    assert (alone.final_latents == together.final_latents).all()


def test_a_reference_without_the_embeddings_that_guidance_needs(
    bundle: Bundle, reference_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(reference_folder, tmp_path / "reference"))
    states = read_reference(folder).embeddings()["text_states"]
    np.savez(folder / "embeddings.npz", text_states=states)
    with pytest.raises(BundleError) as caught:
        draw(bundle, read_reference(folder), Measured())
    assert str(caught.value) == (
        f"{folder / 'embeddings.npz'}: has the keys text_states, expected 'negative.text_states'\n"
        "fix: build the reference again: latentc build RECIPE --out DIR"
    )
