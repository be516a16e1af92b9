"""Knowledge added to a trained model, which stays as it is."""
