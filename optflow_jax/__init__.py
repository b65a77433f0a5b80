"""The OptFlow regularizer."""
