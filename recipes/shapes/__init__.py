"""The demo models: small diffusion models that draw coloured shapes, and the means to check them."""
