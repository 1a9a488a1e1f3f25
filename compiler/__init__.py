"""In which order, from what, remembered where: plan, store, stages."""
