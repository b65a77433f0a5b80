"""The penalties of `optflow_jax.penalties`, each in one file with its proximal operator."""
