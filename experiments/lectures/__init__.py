"""Pictures of the lectures on regularization and optimization, as numbers that are computed."""
