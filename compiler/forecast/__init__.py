"""Forecast: what building a recipe takes, and running what comes of it, before anything is built."""
