"""The DFlash drafter: configuration, model, strict loading."""
