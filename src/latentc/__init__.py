"""latentc compiles text-to-image diffusion pipelines into verified 4-bit bundles for small devices."""

__version__ = "0.1.0"
