"""The shapes family: small real diffusion models, trained here, that every demo and test compiles."""
