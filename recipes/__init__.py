"""What to build: recipe and target types, model families, YAML recipes, the demo models."""
