"""Published models: what their model cards and config files say of each component, without any weight."""
